"""Gated DeltaNet: what is stored along a key is replaced, and forgotten. arXiv 2412.06464.

x ─┬─ in ─┬─ queries, keys, values ─ short conv ─ silu ─ lengths 1 ─┬─ scan ─ norm ─ out ─>
   │      └─ gate ──────────────────────────────────────────────────│─────────┘
   └─ rates ─ how much is replaced, how much is forgotten ──────────┘
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int32

from models.config.decoder import ModelConfig
from models.config.mixers import GatedDelta
from models.layers.attention import AttentionBatch
from models.layers.parts import Linear
from models.layers.states import States, scan
from models.mixers.parts import GatedNorm, ShortConv, inwards, outwards, rows_of, vector
from pallas_kernels.materialised import materialised

_EPS = 1e-6  # under the root of a key's length


class GatedDeltaMixer(nnx.Module):
    """N heads with a state of V by S each."""

    def __init__(self, config: ModelConfig, mixer: GatedDelta, dtype: DTypeLike):
        D, C, N, inner = config.hidden_size, mixer.conv_channels, mixer.num_heads, mixer.inner
        self.mixer = mixer
        self.input = inwards(D, C + inner, bias=False, dtype=dtype)
        # few and sensitive, so never quantised: that axis says so
        self.rates = Linear(D, 2 * N, axes=("embed", "choice"), bias=False, dtype=dtype)
        self.conv = ShortConv(C, mixer.conv_width, False, dtype)
        self.step_bias, self.log_rate = vector(N), vector(N)
        eps = config.norm_eps if mixer.norm_eps is None else mixer.norm_eps
        self.norm = GatedNorm(inner, groups=N, gate_first=False, shared=True, eps=eps)
        self.output = outwards(inner, D, bias=False, dtype=dtype)

    def __call__(
        self, index: Int32[Array, ""], x: Float[Array, "T D"], batch: AttentionBatch, states: States
    ) -> tuple[Float[Array, "T D"], States]:
        mixer, T = self.mixer, len(x)
        keys_width = mixer.num_key_heads * mixer.key_dim
        inputs, gate = jnp.split(self.input(x), [mixer.conv_channels], axis=-1)
        inputs, states = self.conv(index, inputs, batch, states)
        queries, keys, values = jnp.split(
            materialised(jax.nn.silu(inputs)), [keys_width, 2 * keys_width], axis=-1
        )
        rest = ((0, 0), (0, 0), (0, mixer.state_size - mixer.key_dim))
        queries, keys = (
            jnp.pad(unit(each.reshape(T, mixer.num_key_heads, -1)), rest)
            for each in (queries, keys)
        )
        beta, step = jnp.split(self.rates(x).astype(jnp.float32), 2, axis=-1)  # [T, N] each
        step = jax.nn.softplus(step + self.step_bias[...])
        y, states = scan(
            rows_of(batch),
            states,
            index,
            values.reshape(T, mixer.num_heads, -1),
            keys.astype(x.dtype),
            (queries * mixer.key_dim**-0.5).astype(x.dtype),
            (-jnp.exp(self.log_rate[...]) * step)[..., None],
            batch.mesh,
            beta=mixer.most_replaced * jax.nn.sigmoid(beta),
        )
        return self.output(self.norm(y.reshape(T, -1), gate)), states


def unit(x: Float[Array, "T J S"]) -> Float[Array, "T J S"]:
    """Vectors of length 1, in float32."""
    wide = x.astype(jnp.float32)
    return wide * jax.lax.rsqrt(jnp.sum(wide * wide, -1, keepdims=True) + _EPS)
