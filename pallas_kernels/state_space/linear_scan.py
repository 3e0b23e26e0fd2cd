"""The linear recurrence h = decay h + x over packed rows, each channel by itself (RG-LRU).

Left to XLA: few kernels of products and sums, whose number grows with the logarithm of the tokens.

    tokens   0 .. 7 | 8 .. 15 | ...     each group's last h, as if it had begun at zero
    groups   the same of these           what each group begins with
    tokens   0 .. 7 | 8 .. 15 | ...     every h
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from pallas_kernels.state_space.rows import ScanRows

_GROUP = 8  # tokens of one row of a kernel's work


def linear_scan(
    state: Float[Array, "Z C"],
    inputs: Float[Array, "T C"],
    decay: Float[Array, "T C"],
    rows: ScanRows,
    *,
    single: bool = False,
) -> tuple[Float[Array, "T C"], Float[Array, "Z C"]]:
    """Every token's h, and the pool, updated in place where it is donated; padding gives any value.

    No row has more than one token where `single` says so. Specification: with values `inputs`, keys
    and queries of 1 and rates log `decay`, `reference.ssm_scan_reference` with V = S = 1.
    """
    T, B = inputs.shape[0], rows.first.shape[0]
    token = jnp.arange(T)
    row = jnp.searchsorted(rows.first + rows.length, token, side="right", method="compare_all")
    row = jnp.minimum(row, B - 1)
    kept = jnp.where(rows.fresh[:, None], 0, state[rows.read_slots])  # [B, C]
    begins = (token == rows.first[row])[:, None]
    h = inputs + jnp.where(begins, decay * kept[row], 0)
    if not single:
        h = _prefixes(jnp.where(begins, 0, decay), h)
    state = _put(state, h, rows, rows.length, rows.slots)
    if rows.snapshots is not None:
        state = _put(state, h, rows, *rows.snapshots)
    return h, state


def _prefixes(decay: Float[Array, "T C"], x: Float[Array, "T C"]) -> Float[Array, "T C"]:
    """h[t] = decay[t] h[t - 1] + x[t], from 0 on; where the decay is 0, whatever came before."""
    T, C = x.shape
    padded = [jnp.pad(one, ((0, -T % _GROUP), (0, 0))) for one in (decay, x)]
    a, x = (one.reshape(-1, _GROUP, C) for one in padded)
    before = jnp.zeros_like(x[:, 0])
    if len(x) > 1:
        total, last = a[:, 0], x[:, 0]
        for place in range(1, _GROUP):
            total, last = (_go_on(a[:, place], *pair) for pair in ((total, 0), (last, x[:, place])))
        before = before.at[1:].set(_prefixes(total, last)[:-1])
    h = [before]
    for place in range(_GROUP):
        h.append(_go_on(a[:, place], h[-1], x[:, place]))
    return jnp.stack(h[1:], axis=1).reshape(-1, C)[:T]


def _go_on(decay: Array, before: Array, x: Array | int) -> Array:
    """Of another row before nothing is left, were it NaN."""
    return x + jnp.where(decay == 0, 0, decay * before)


def _put(
    state: Float[Array, "Z C"],
    h: Float[Array, "T C"],
    rows: ScanRows,
    after: Int32[Array, " B"],
    slots: Int32[Array, " B"],
) -> Float[Array, "Z C"]:
    """The pool with the states of rows after so many of their tokens, if not none."""
    last = h[jnp.maximum(rows.first + after - 1, 0)]
    return state.at[jnp.where(after > 0, slots, state.shape[0])].set(last, mode="drop")
