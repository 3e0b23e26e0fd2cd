"""The short convolution over each row's own inputs (Mamba, gated delta rule, short-conv layers).

A decode step on a Hopper GPU is one kernel; else XLA makes it one for the products and two for the
states, which is as fast where there are many tokens. A decode step that is left to XLA looks for no
token's place in its row: each row's inputs are its state and its token.
"""

from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from pallas_kernels.dispatch import Backend, resolve
from pallas_kernels.state_space.rows import ScanRows


def causal_conv(
    x: Float[Array, "T C"],
    weight: Float[Array, "W C"],
    state: Float[Array, "Z W1 C"],
    rows: ScanRows,
    *,
    single: bool = False,
) -> tuple[Float[Array, "T C"], Float[Array, "Z W1 C"]]:
    """Each token's weighted sum of the last W inputs of its row; the last W - 1 are kept as state.

    Where `single`, row b has token b or none. Specification: `reference.causal_conv_reference`;
    padding gives any value. With `state` donated the pool is updated in place.
    """
    if resolve(None) is Backend.MOSAIC:
        from pallas_kernels.state_space.mosaic_conv import mosaic_conv, takes_conv

        if takes_conv(x, rows):
            return mosaic_conv(x, weight, state, rows)
    if single:
        return _conv_side_by_side(x, weight, state, rows)
    T, W = x.shape[0], weight.shape[0]
    token = jnp.arange(T)
    row = jnp.searchsorted(rows.first + rows.length, token, side="right", method="compare_all")
    row = jnp.minimum(row, rows.first.shape[0] - 1)
    kept = jnp.where(rows.fresh[:, None, None], 0, state[rows.read_slots])  # [B, W1, C]
    total = jnp.zeros(x.shape, jnp.float32)
    for back in range(W):
        before = token - back
        place = before - rows.first[row]  # in the row; negative: from an earlier step
        inside = x[jnp.maximum(before, 0)]
        outside = kept[row, jnp.clip(place + W - 1, 0, W - 2)]
        seen = jnp.where((place >= 0)[:, None], inside, outside)
        total += seen.astype(jnp.float32) * weight[W - 1 - back].astype(jnp.float32)
    state = _advance(x, kept, state, rows, rows.length, rows.slots)
    if rows.snapshots is not None:
        state = _advance(x, kept, state, rows, *rows.snapshots)
    return total.astype(x.dtype), state


def _conv_side_by_side(
    x: Float[Array, "B C"],
    weight: Float[Array, "W C"],
    state: Float[Array, "Z W1 C"],
    rows: ScanRows,
) -> tuple[Float[Array, "B C"], Float[Array, "Z W1 C"]]:
    """`causal_conv` where row b has token b or none."""
    kept = jnp.where(rows.fresh[:, None, None], 0, state[rows.read_slots])  # [B, W1, C]
    total = x.astype(jnp.float32) * weight[-1].astype(jnp.float32)
    for place in range(weight.shape[0] - 1):
        total += kept[:, place].astype(jnp.float32) * weight[place].astype(jnp.float32)
    last = jnp.concatenate([kept[:, 1:], x[:, None].astype(state.dtype)], axis=1)
    put = partial(_put, last)
    state = put(state, rows.length, rows.slots)
    if rows.snapshots is not None:  # the same, for they are behind the one token
        state = put(state, *rows.snapshots)
    return total.astype(x.dtype), state


def _advance(
    x: Float[Array, "T C"],
    kept: Float[Array, "B W1 C"],
    state: Float[Array, "Z W1 C"],
    rows: ScanRows,
    after: Int32[Array, " B"],
    slots: Int32[Array, " B"],
) -> Float[Array, "Z W1 C"]:
    """The pool, with the last W - 1 inputs of rows after so many of their tokens, if not none."""
    W1 = state.shape[1]
    place = after[:, None] - W1 + jnp.arange(W1)  # [B, W1]
    new = x[jnp.clip(rows.first[:, None] + place, 0, x.shape[0] - 1)]
    old = jnp.take_along_axis(kept, jnp.clip(place + W1, 0, W1 - 1)[:, :, None], axis=1)
    last = jnp.where((place >= 0)[:, :, None], new, old).astype(state.dtype)
    return _put(last, state, after, slots)


def _put(
    last: Float[Array, "B W1 C"],
    state: Float[Array, "Z W1 C"],
    after: Int32[Array, " B"],
    slots: Int32[Array, " B"],
) -> Float[Array, "Z W1 C"]:
    """The pool with these inputs in the slots of rows where `after` is not 0."""
    return state.at[jnp.where(after > 0, slots, state.shape[0])].set(last, mode="drop")
