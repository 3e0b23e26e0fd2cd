"""RG-LRU: numbers that each forget at a rate of their own and of the token. arXiv 2402.19427.

x ─ in ─┬─ short conv ─┬─ gate of the input ─ * ─ scan ─ * ─ out ─>
        │              ├───────────────────────┘  │      │
        │              └─ gate of what is kept ───┘      │
        └─ activation ───────────────────────────────────┘
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int32

from models.config.decoder import ModelConfig
from models.config.mixers import LinearRecurrence
from models.layers.attention import AttentionBatch
from models.layers.parts import ACTIVATIONS
from models.layers.states import States, linear_scan
from models.mixers.parts import ShortConv, inwards, outwards, rows_of, vector

_SHARPNESS = -8.0  # of every model there is: a gate that is open forgets by exp(-8 softplus(rate))


class LinearRecurrenceMixer(nnx.Module):
    """C numbers, whose gates are products of N blocks of them."""

    def __init__(self, config: ModelConfig, mixer: LinearRecurrence, dtype: DTypeLike):
        D, C, N, size = config.hidden_size, mixer.inner, mixer.num_blocks, mixer.block_size
        self.activation = ACTIVATIONS[config.activation]
        self.input = inwards(D, 2 * C, bias=True, dtype=dtype)
        self.conv = ShortConv(C, mixer.conv_width, True, dtype)
        self.gates = nnx.Param(jnp.zeros((N, size, 2 * size), dtype), axes=(None, None, None))
        self.gate_bias, self.rate = vector(N, 2 * size), vector(C)
        self.output = outwards(C, D, bias=True, dtype=dtype)

    def __call__(
        self, index: Int32[Array, ""], x: Float[Array, "T D"], batch: AttentionBatch, states: States
    ) -> tuple[Float[Array, "T D"], States]:
        inputs, beside = jnp.split(self.input(x), 2, axis=-1)
        inputs, states = self.conv(index, inputs, batch, states)
        entering, forgetting = self._gates(inputs)  # [T, C] each
        rate = _SHARPNESS * forgetting * jax.nn.softplus(self.rate[...])
        room = jnp.sqrt(-jnp.expm1(2 * rate))  # so that the state's variance is the inputs'
        first = (batch.positions == 0)[:, None]
        y, states = linear_scan(
            rows_of(batch),
            states,
            index,
            inputs * entering * jnp.where(first, 1, room),
            jnp.exp(rate),
            batch.mesh,
        )
        return self.output(y.astype(x.dtype) * self.activation(beside)), states

    def _gates(self, x: Float[Array, "T C"]) -> tuple[Float32[Array, "T C"], Float32[Array, "T C"]]:
        """How much of the input enters, and how much is forgotten: between 0 and 1."""
        T, (N, size, _) = len(x), self.gates.shape
        opened = jnp.einsum(
            "tni,nio->tno",
            x.reshape(T, N, size),
            self.gates[...],
            preferred_element_type=jnp.float32,
        )
        entering, forgetting = jnp.split(jax.nn.sigmoid(opened + self.gate_bias[...]), 2, axis=-1)
        return entering.reshape(T, -1), forgetting.reshape(T, -1)
