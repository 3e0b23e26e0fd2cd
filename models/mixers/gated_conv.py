"""LFM2's operator: a short convolution, with a gate before it and one behind it.

x ─ in ─┬─ gate ─ * ─ short conv ─ * ─ out ─>
        ├─ values ┘                │
        └─ gate ───────────────────┘
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int32

from models.config.decoder import ModelConfig
from models.config.mixers import GatedConv
from models.layers.attention import AttentionBatch
from models.layers.states import States
from models.mixers.parts import ShortConv, inwards, outwards


class GatedConvMixer(nnx.Module):
    """D channels, each by itself between two products."""

    def __init__(self, config: ModelConfig, mixer: GatedConv, dtype: DTypeLike):
        D, C, bias = config.hidden_size, mixer.inner, mixer.bias
        self.input = inwards(D, 3 * C, bias=bias, dtype=dtype)
        self.conv = ShortConv(C, mixer.conv_width, bias, dtype)
        self.output = outwards(C, D, bias=bias, dtype=dtype)

    def __call__(
        self, index: Int32[Array, ""], x: Float[Array, "T D"], batch: AttentionBatch, states: States
    ) -> tuple[Float[Array, "T D"], States]:
        before, behind, values = jnp.split(self.input(x), 3, axis=-1)
        y, states = self.conv(index, before * values, batch, states)
        return self.output(behind * y), states
