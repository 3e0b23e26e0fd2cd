"""Mamba: every entry of the state forgets at a rate of its own. Source: arXiv 2312.00752.

x ─ in ─┬─ values ─ short conv ─ silu ─┬───────────────────────────┬─ scan ─ + skip ─ * ─ out ─>
        │                              └─ steps, keys, queries ────┘                  │
        └─ gate ─ silu ───────────────────────────────────────────────────────────────┘
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int32

from models.config.decoder import ModelConfig
from models.config.mixers import SelectiveScan
from models.layers.attention import AttentionBatch
from models.layers.parts import Linear, RMSNorm
from models.layers.states import States, scan
from models.mixers.parts import ShortConv, inwards, outwards, rows_of, vector
from pallas_kernels import rms_norm
from pallas_kernels.exponential import quick_softplus


class SelectiveScanMixer(nnx.Module):
    """One head with a state of V by S."""

    def __init__(self, config: ModelConfig, mixer: SelectiveScan, dtype: DTypeLike):
        D, V, S, R = config.hidden_size, mixer.inner, mixer.state_size, mixer.rank
        inner = partial(Linear, axes=("latent", "latent"), dtype=dtype)
        self.mixer = mixer
        self.input = inwards(D, 2 * V, bias=mixer.bias, dtype=dtype)
        self.conv = ShortConv(V, mixer.conv_width, mixer.conv_bias, dtype)
        self.select = inner(V, R + 2 * S, bias=False)
        self.step_norm, self.key_norm, self.query_norm = (
            RMSNorm(size, eps=mixer.norm_eps) if mixer.norms == "weighted" else None
            for size in (R, S, S)
        )
        self.step = inner(R, V, bias=False)
        self.step_bias, self.skip, self.matrix = vector(V), vector(V), vector(V, S)
        self.output = outwards(V, D, bias=mixer.bias, dtype=dtype)

    def __call__(
        self, index: Int32[Array, ""], x: Float[Array, "T D"], batch: AttentionBatch, states: States
    ) -> tuple[Float[Array, "T D"], States]:
        mixer = self.mixer
        values, gate = jnp.split(self.input(x), 2, axis=-1)
        values, states = self.conv(index, values, batch, states)
        values = jax.nn.silu(values)
        step, keys, queries = self._select(values)
        step = self.step.product(step, jnp.float32) + self.step_bias[...]
        step = quick_softplus(step)[:, None]  # [T, 1, V]
        y, states = scan(
            rows_of(batch),
            states,
            index,
            (values[:, None] * step).astype(x.dtype),
            keys[:, None],
            queries[:, None],
            step,
            batch.mesh,
            matrix=self.matrix[...][None],
        )
        y = (y.reshape(-1, mixer.inner) + values * self.skip[...]) * jax.nn.silu(gate)
        return self.output(y.astype(x.dtype)), states

    def _select(
        self, x: Float[Array, "T V"]
    ) -> tuple[Float[Array, "T R"], Float[Array, "T S"], Float[Array, "T S"]]:
        """What the inputs choose: steps, keys and queries."""
        rank, size = self.mixer.rank, self.mixer.state_size
        step, keys, queries = jnp.split(self.select(x), [rank, rank + size], axis=-1)
        if self.mixer.norms == "plain":
            step, keys, queries = (_normed(one, self.mixer) for one in (step, keys, queries))
        if self.step_norm is not None and self.key_norm and self.query_norm:
            step, keys = self.step_norm(step), self.key_norm(keys)
            queries = self.query_norm(queries)
        return step, keys, queries


def _normed(x: Float[Array, "T size"], mixer: SelectiveScan) -> Float[Array, "T size"]:
    """Without weights."""
    return rms_norm(x, jnp.ones(x.shape[-1], jnp.float32), mixer.norm_eps).astype(x.dtype)
