"""The scan of Mamba-1, Mamba-2 and the gated delta rule over packed rows, one token or many."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from pallas_kernels.dispatch import Backend, resolve
from pallas_kernels.state_space.rows import ScanRows


def ssm_scan(
    state: Float32[Array, "Z N V S"],
    values: Float[Array, "T N V"],
    keys: Float[Array, "T J S"],
    queries: Float[Array, "T J S"],
    rates: Float32[Array, "T N W"],
    rows: ScanRows,
    *,
    matrix: Float32[Array, "N V S"] | None = None,
    beta: Float32[Array, "T N"] | None = None,
) -> tuple[Float[Array, "T N V"], Float32[Array, "Z N V S"]]:
    """Every token's output, and the pool of states, updated in place where it is donated.

    Specification: `reference.ssm_scan_reference`; padding gives any value.

    Raises:
        KernelError: the GPU's kernel does not take these sizes.
    """
    if resolve(None) is Backend.MOSAIC:
        from pallas_kernels.state_space.mosaic_scan import mosaic_scan

        return mosaic_scan(state, values, keys, queries, rates, rows, matrix=matrix, beta=beta)
    return _scan_rows(state, values, keys, queries, rates, rows, matrix, beta)


def _scan_rows(
    state: Array, values: Array, keys: Array, queries: Array, rates: Array, rows: ScanRows,
    matrix: Array | None, beta: Array | None,
) -> tuple[Array, Array]:  # fmt: skip
    """All rows side by side, a token of each at a time: in a decode step that is one turn."""
    T, groups = values.shape[0], values.shape[1] // keys.shape[1]
    h = jnp.where(rows.fresh[:, None, None, None], 0.0, state[rows.slots])  # [B, N, V, S]

    def turn(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        h, y = carry
        live = index < rows.length
        t = jnp.where(live, rows.first + index, T - 1)
        k, q = (jnp.repeat(x[t], groups, axis=1).astype(jnp.float32) for x in (keys, queries))
        rate = rates[t][..., None]  # [B, N, W, 1]
        decayed = h * jnp.exp(rate if matrix is None else rate * matrix)
        v = values[t].astype(jnp.float32)
        if beta is not None:
            v = beta[t][..., None] * (v - jnp.einsum("bnvs,bns->bnv", decayed, k))
        new = decayed + v[..., None] * k[:, :, None, :]
        out = jnp.einsum("bnvs,bns->bnv", new, q).astype(y.dtype)
        y = y.at[jnp.where(live, t, T)].set(out, mode="drop")
        return jnp.where(live[:, None, None, None], new, h), y

    h, y = lax.fori_loop(0, rows.length.max(), turn, (h, jnp.zeros_like(values)))
    slots = jnp.where(rows.length > 0, rows.slots, state.shape[0])
    return y, state.at[slots].set(h, mode="drop")
