"""The optimiser of the demo model: Muon for the matrices of the layers, Adam for the rest.

Owns the update of parameters from gradients and the learning-rate schedule. Muon (Jordan et al.
2024) makes the momentum of a matrix orthogonal before it is applied; the scale by which one
learning rate serves both is that of arXiv 2502.16982.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MOMENTUM, BETA1, BETA2 = 0.95, 0.9, 0.97
DECAY = 0.02  # of the matrices, per step and unit of learning rate


class State(NamedTuple):
    """Running means of the gradients (and for Adam of their squares) and the number of steps."""

    first: Any
    second: Any
    step: Array


def init(params: Any) -> State:
    """The state before the first step."""
    zeros = jax.tree.map(jnp.zeros_like, params)
    return State(zeros, jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32))


def orthogonal(matrix: Float[Array, "a b"]) -> Float[Array, "a b"]:
    """Roughly the nearest matrix with all singular values one, by five Newton-Schulz steps."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x: Array = wide / (jnp.linalg.norm(wide) + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def schedule(step: Array, steps: int, peak: float) -> Array:
    """Warm-up over 100 steps, `peak` for a third of all steps, then a cosine down to a fiftieth."""
    warm = jnp.minimum(1.0, (step + 1) / 100)
    done = jnp.clip((step / steps - 1 / 3) * 1.5, 0.0, 1.0)
    return peak * warm * (0.02 + 0.98 * 0.5 * (1 + jnp.cos(jnp.pi * done)))


def _is_matrix(path: tuple[Any, ...], x: Array) -> bool:
    return x.ndim == 2 and "layers" in jax.tree_util.keystr(path)


def update(params: Any, grads: Any, state: State, rate: Array) -> tuple[Any, State]:
    """Parameters and state after one step with learning rate `rate`."""
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(grads)))
    grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, 1.0 / (norm + 1e-6)), grads)
    step = state.step + 1

    def one(path: Any, p: Array, g: Array, m: Array, v: Array) -> tuple[Array, Array, Array]:
        if _is_matrix(path, p):
            m = MOMENTUM * m + (1 - MOMENTUM) * g
            direction = orthogonal(MOMENTUM * m + (1 - MOMENTUM) * g) * 0.2 * max(p.shape) ** 0.5
            return p - rate * (direction + DECAY * p), m, v
        m = BETA1 * m + (1 - BETA1) * g
        v = BETA2 * v + (1 - BETA2) * g * g
        direction = (m / (1 - BETA1**step)) / (jnp.sqrt(v / (1 - BETA2**step)) + 1e-8)
        return p - rate * direction, m, v

    moved = jax.tree_util.tree_map_with_path(one, params, grads, state.first, state.second)
    outer = jax.tree.structure(params)
    p, m, v = jax.tree.transpose(outer, jax.tree.structure((0, 0, 0)), moved)
    return p, State(m, v, step)
