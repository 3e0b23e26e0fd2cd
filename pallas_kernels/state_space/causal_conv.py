"""The short convolution over each row's own inputs (Mamba, gated delta rule, short-conv layers).

A decode step on a Hopper GPU is one kernel; else XLA makes it one for the products and two for the
states, which is as fast where there are many tokens.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from pallas_kernels.dispatch import Backend, resolve
from pallas_kernels.state_space.rows import ScanRows


def causal_conv(
    x: Float[Array, "T C"],
    weight: Float[Array, "W C"],
    state: Float[Array, "Z W1 C"],
    rows: ScanRows,
) -> tuple[Float[Array, "T C"], Float[Array, "Z W1 C"]]:
    """Each token's weighted sum of the last W inputs of its row; the last W - 1 are kept as state.

    Specification: `reference.causal_conv_reference`; padding gives any value. With `state` donated
    the pool is updated in place.
    """
    if resolve(None) is Backend.MOSAIC:
        from pallas_kernels.state_space.mosaic_conv import mosaic_conv, takes_conv

        if takes_conv(x, rows):
            return mosaic_conv(x, weight, state, rows)
    T, W = x.shape[0], weight.shape[0]
    token = jnp.arange(T)
    row = jnp.searchsorted(rows.first + rows.length, token, side="right", method="compare_all")
    row = jnp.minimum(row, rows.first.shape[0] - 1)
    kept = jnp.where(rows.fresh[:, None, None], 0, state[rows.slots])  # [B, W1, C]
    total = jnp.zeros(x.shape, jnp.float32)
    for back in range(W):
        before = token - back
        place = before - rows.first[row]  # in the row; negative: from an earlier step
        inside = x[jnp.maximum(before, 0)]
        outside = kept[row, jnp.clip(place + W - 1, 0, W - 2)]
        seen = jnp.where((place >= 0)[:, None], inside, outside)
        total += seen.astype(jnp.float32) * weight[W - 1 - back].astype(jnp.float32)
    return total.astype(x.dtype), _advance(x, kept, state, rows)


def _advance(
    x: Float[Array, "T C"],
    kept: Float[Array, "B W1 C"],
    state: Float[Array, "Z W1 C"],
    rows: ScanRows,
) -> Float[Array, "Z W1 C"]:
    """The pool, with the last W - 1 inputs of every row that has tokens."""
    W1 = state.shape[1]
    place = rows.length[:, None] - W1 + jnp.arange(W1)  # [B, W1]
    new = x[jnp.clip(rows.first[:, None] + place, 0, x.shape[0] - 1)]
    old = jnp.take_along_axis(kept, jnp.clip(place + W1, 0, W1 - 1)[:, :, None], axis=1)
    last = jnp.where((place >= 0)[:, :, None], new, old).astype(state.dtype)
    slots = jnp.where(rows.length > 0, rows.slots, state.shape[0])
    return state.at[slots].set(last, mode="drop")
