"""What adapters add to the product of one matrix, token by token.

    A  [in, S W]    slot 0 | slot 1 | ..        the A of all slots lie side by side, and so do their
    B  [S W, out]                               B; of a fused matrix a slot has the A of its parts

A step multiplies by both once, whatever adapters its tokens have: what of x A is not of the token's
own slot is zero before it meets B. Owns this arithmetic. Knows no file, no request and no name.
Source: LoRA, arXiv 2106.09685.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int32


class LowRank(nnx.Module):
    """x A[s] B[s] for tokens of slot s, `width` numbers of x A a slot; 0 where s is negative."""

    def __init__(
        self,
        shape: tuple[int, int],
        axes: tuple[str | None, ...],
        *,
        slots: int,
        width: int,
        dtype: DTypeLike,
    ):
        inputs, outputs = shape
        self.width = width
        self.a = nnx.Param(jnp.zeros((inputs, slots * width), dtype), axes=(axes[0], "rank"))
        self.b = nnx.Param(jnp.zeros((slots * width, outputs), dtype), axes=("rank", axes[1]))
        self.slot: Any = None  # of each token of the step that is traced: `choose_slots`

    def __call__(self, x: Float[Array, "T inputs"]) -> Float[Array, "T outputs"]:
        """Raises TypeError where nobody has chosen slots."""
        if self.slot is None:
            raise TypeError("a model with adapters is not told whose each token is")
        h = jnp.dot(x, self.a[...], preferred_element_type=jnp.float32)  # [T, S W]
        owner = jnp.arange(h.shape[1]) // self.width
        own = jnp.where(owner == self.slot[:, None], h, 0).astype(x.dtype)
        return jnp.dot(own, self.b[...])


def choose_slots(layer: nnx.Module, slot: Int32[Array, " T"]) -> None:
    """Tell a layer, inside of the jit that was given it, which slot each token's adapter has."""
    for _, module in nnx.iter_modules(layer):
        if isinstance(module, LowRank):
            module.slot = nnx.data(slot)
