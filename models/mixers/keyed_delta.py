"""Kimi Delta Attention: what is stored along a key is replaced, and forgotten entry by entry.

x ─┬─ in ─┬─ queries, keys, values ─ short conv ─ silu ─ lengths 1 ─┬─ scan ─ norm ─ out ─>
   │      ├─ few numbers ─ decay: how much each entry forgets ──────┤          │
   │      └─ few numbers ─ gate ────────────────────────────────────│──────────┘
   └─ rates ─ how much is replaced ─────────────────────────────────┘

Source: Kimi Linear, arXiv 2510.26692.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int32

from models.config.decoder import ModelConfig
from models.config.mixers import KeyedDelta
from models.layers.attention import AttentionBatch
from models.layers.parts import Linear
from models.layers.states import States, scan
from models.mixers.gated_delta import unit
from models.mixers.parts import GatedNorm, ShortConv, inwards, outwards, rows_of, vector


class KeyedDeltaMixer(nnx.Module):
    """N heads with a state of H by H each."""

    def __init__(self, config: ModelConfig, mixer: KeyedDelta, dtype: DTypeLike):
        D, N, H, inner = config.hidden_size, mixer.num_heads, mixer.head_dim, mixer.inner
        self.mixer = mixer
        self.input = inwards(D, mixer.conv_channels + 2 * H, bias=False, dtype=dtype)
        # few and sensitive, so never quantised: that axis says so
        self.rates = Linear(D, N, axes=("embed", "choice"), bias=False, dtype=dtype)
        self.conv = ShortConv(mixer.conv_channels, mixer.conv_width, False, dtype)
        self.decay, self.gate = (inwards(H, inner, bias=False, dtype=dtype) for _ in range(2))
        self.step_bias, self.log_rate = vector(inner), vector(1, N, 1)
        self.norm = GatedNorm(
            inner, groups=N, gate_first=False, shared=True, eps=config.norm_eps, act=jax.nn.sigmoid
        )
        self.output = outwards(inner, D, bias=False, dtype=dtype)

    def __call__(
        self, index: Int32[Array, ""], x: Float[Array, "T D"], batch: AttentionBatch, states: States
    ) -> tuple[Float[Array, "T D"], States]:
        mixer, heads = self.mixer, (len(x), self.mixer.num_heads, self.mixer.head_dim)
        C = mixer.conv_channels
        inputs, forget, gate = jnp.split(self.input(x), [C, C + mixer.head_dim], axis=-1)
        inputs, states = self.conv(index, inputs, batch, states)
        queries, keys, values = (
            part.reshape(heads) for part in jnp.split(jax.nn.silu(inputs), 3, axis=-1)
        )
        step = self.decay(forget).astype(jnp.float32) + self.step_bias[...]
        y, states = scan(
            rows_of(batch),
            states,
            index,
            values,
            unit(keys).astype(x.dtype),
            (unit(queries) * mixer.head_dim**-0.5).astype(x.dtype),
            -jnp.exp(self.log_rate[...]) * jax.nn.softplus(step).reshape(heads),
            batch.mesh,
            beta=jax.nn.sigmoid(self.rates(x).astype(jnp.float32)),
        )
        return self.output(self.norm(y.reshape(len(x), -1), self.gate(gate))), states
