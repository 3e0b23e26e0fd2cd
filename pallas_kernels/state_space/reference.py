"""The specification of the state-space kernels, in plain jnp, a token at a time.

A head's state is a matrix h [V, S]. Each token lets it decay, writes its value along its key, and
reads it along its query:

    h = decay h                      one number a head (Mamba-2, gated delta rule), one for each
                                     entry of keys (Kimi), or exp(dt A) for each entry (Mamba-1)
    v = beta (v - h k)               delta rule only: what is stored along k is replaced
    h = h + v k^T
    y = h q

Sources: Mamba (arXiv:2312.00752), Mamba-2 (arXiv:2405.21060), gated delta rule (arXiv:2412.06464).
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from pallas_kernels.state_space.rows import ScanRows


def ssm_scan_reference(
    state: Float[Array, "Z N V S"],
    values: Float[Array, "T N V"],
    keys: Float[Array, "T J S"],
    queries: Float[Array, "T J S"],
    rates: Float[Array, "T N W"],
    rows: ScanRows,
    *,
    matrix: Float[Array, "N V S"] | None = None,
    beta: Float[Array, "T N"] | None = None,
) -> tuple[Float[Array, "T N V"], Float[Array, "Z N V S"]]:
    """`y` of every token, and the pool with the states after the last tokens of their rows.

    Where `rows` ask for snapshots, the pool has those too.

    N heads share J keys and queries, N / J in a group. `rates` are logarithms of the decay, W = 1,
    or of each entry of keys, W = S; with `matrix` A they are dt, W = V, and the decay is exp(dt A).
    `beta` makes it the delta rule.
    """
    wide = jnp.promote_types(values.dtype, jnp.float32)
    groups = values.shape[1] // keys.shape[1]
    state = _begun(state.astype(wide), rows)

    def token(state: Array, t: Array) -> tuple[Array, Array]:
        slot, snapshot = _slots_of(t, rows, state.shape[0])
        k, q = (jnp.repeat(x[t], groups, axis=0).astype(wide) for x in (keys, queries))  # [N, S]
        rate = rates[t].astype(wide)  # [N, W]
        entries = rate[:, None] if matrix is None else rate[..., None] * matrix.astype(wide)
        decay = jnp.exp(entries)  # [N, V or 1, S or 1]
        h = state.at[slot].get(mode="fill", fill_value=0) * decay
        v = values[t].astype(wide)
        if beta is not None:
            v = beta[t].astype(wide)[:, None] * (v - jnp.einsum("nvs,ns->nv", h, k))
        h = h + v[:, :, None] * k[:, None, :]
        for place in (slot, snapshot):
            state = state.at[place].set(h, mode="drop")
        return state, jnp.einsum("nvs,ns->nv", h, q)

    state, y = lax.scan(token, state, jnp.arange(values.shape[0]))
    return y.astype(values.dtype), state


def causal_conv_reference(
    x: Float[Array, "T C"],
    weight: Float[Array, "W C"],
    state: Float[Array, "Z W1 C"],
    rows: ScanRows,
) -> tuple[Float[Array, "T C"], Float[Array, "Z W1 C"]]:
    """y[t] = sum_j weight[j] x[t - W + 1 + j] over the row's inputs, W1 = W - 1 are kept."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    state = _begun(state.astype(wide), rows)

    def token(state: Array, t: Array) -> tuple[Array, Array]:
        slot, snapshot = _slots_of(t, rows, state.shape[0])
        kept = state.at[slot].get(mode="fill", fill_value=0)
        seen = jnp.concatenate([kept, x[t].astype(wide)[None]])  # [W, C]
        for place in (slot, snapshot):
            state = state.at[place].set(seen[1:], mode="drop")
        return state, (seen * weight.astype(wide)).sum(0)

    state, y = lax.scan(token, state, jnp.arange(x.shape[0]))
    return y.astype(x.dtype), state


def _begun(state: Float[Array, "Z *S"], rows: ScanRows) -> Float[Array, "Z *S"]:
    """The pool with what every row that has tokens begins with in its own slot."""
    fresh = rows.fresh.reshape(-1, *[1] * (state.ndim - 1))
    slots = jnp.where(rows.length > 0, rows.slots, state.shape[0])
    begin: Array = jnp.where(fresh, 0.0, state[rows.read_slots])
    return state.at[slots].set(begin, mode="drop")


def _slots_of(t: Array, rows: ScanRows, nowhere: int) -> tuple[Array, Array]:
    """Where the state after token t goes, and where its snapshot goes; or `nowhere`."""
    owner = (rows.first <= t) & (t < rows.first + rows.length)
    row = jnp.argmax(owner)
    slot = jnp.where(owner.any(), rows.slots[row], nowhere)
    if rows.snapshots is None:
        return slot, jnp.asarray(nowhere)
    border = owner.any() & (t + 1 == (rows.first + rows.snapshots.after)[row])
    return slot, jnp.where(border, rows.snapshots.slots[row], nowhere)
