"""What lies between an expert's two products, entry by entry: of gate and up, or of up alone."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

Gated = Callable[[Array, Array], Array]
Plain = Callable[[Array], Array]


def _clamped_swiglu(gate: Array, up: Array) -> Array:
    """(up + 1) gate sigmoid(1.702 gate), both kept within 7. Source: gpt-oss, its model card."""
    gate, up = jnp.minimum(gate, 7.0), jnp.clip(up, -7.0, 7.0)
    return (up + 1) * gate * _sigmoid(1.702 * gate)


def _squared_relu(up: Array) -> Array:
    """Source: Primer, arXiv 2109.08668."""
    positive = jnp.maximum(up, 0.0)
    return positive * positive


def _sigmoid(x: Array) -> Array:
    """By an exponential, which kernels have."""
    return 1 / (1 + jnp.exp(-x))


GATED: Mapping[str, Gated] = {
    "silu": lambda gate, up: gate * _sigmoid(gate) * up,
    "gelu_pytorch_tanh": lambda gate, up: partial(jax.nn.gelu, approximate=True)(gate) * up,
    "clamped_swiglu": _clamped_swiglu,
}
UNGATED: Mapping[str, Plain] = {"relu2": _squared_relu}


def num_parts(activation: str | None) -> int:
    """Columns of the first product of which one number is made: the gate's and up's, or up's."""
    return 2 if activation in GATED else 1


def activate(activation: str | None, parts: Sequence[Array]) -> Array:
    """What goes into the second product; without an activation what there is."""
    if activation is None or activation in UNGATED:
        (up,) = parts
        return up if activation is None else UNGATED[activation](up)
    gate, up = parts
    return GATED[activation](gate, up)
