"""What lies between an expert's two products: a function of gate and up, entry by entry."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

Gated = Callable[[Array, Array], Array]


def _clamped_swiglu(gate: Array, up: Array) -> Array:
    """(up + 1) gate sigmoid(1.702 gate), both kept within 7. Source: gpt-oss, its model card."""
    gate, up = jnp.minimum(gate, 7.0), jnp.clip(up, -7.0, 7.0)
    return (up + 1) * gate * _sigmoid(1.702 * gate)


def _sigmoid(x: Array) -> Array:
    """By an exponential, which kernels have."""
    return 1 / (1 + jnp.exp(-x))


ACTIVATIONS: Mapping[str, Gated] = {
    "silu": lambda gate, up: gate * _sigmoid(gate) * up,
    "gelu_pytorch_tanh": lambda gate, up: partial(jax.nn.gelu, approximate=True)(gate) * up,
    "clamped_swiglu": _clamped_swiglu,
}
