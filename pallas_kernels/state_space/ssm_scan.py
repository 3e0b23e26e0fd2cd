"""The scan of Mamba-1, Mamba-2 and the gated delta rule over packed rows, one token or many.

a decode step              all rows side by side: token_step.py
more tokens, on a CPU      row by row, a few tokens one by one, many in chunks
on a Hopper GPU            Mamba-1: mosaic_selective.py; others: mosaic_scan.py for decode steps,
                           mosaic_chunks.py for more; decays by key entry as on a CPU
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from pallas_kernels.dispatch import Backend, resolve
from pallas_kernels.state_space.chunked import CHUNK, chunk_step
from pallas_kernels.state_space.keyed_chunks import keyed_chunk_step
from pallas_kernels.state_space.rows import ScanRows
from pallas_kernels.state_space.token_step import scan_side_by_side, token_step

_FEW = 4  # tokens that cost less one by one than in a chunk


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
    single: bool = False,
) -> tuple[Float[Array, "T N V"], Float32[Array, "Z N V S"]]:
    """Every token's output, and the pool of states, updated in place where it is donated.

    Rows may begin and end anywhere in the step, and leave a snapshot anywhere (`rows.py`); where
    `single`, row b has token b or none.
    Specification: `reference.ssm_scan_reference`; padding gives any value.

    Raises:
        KernelError: the GPU's kernel does not take these sizes.
    """
    keyed = matrix is None and rates.shape[-1] > 1
    if resolve(None) is Backend.MOSAIC and not keyed:
        return scan_on_hopper(state, values, keys, queries, rates, rows, matrix=matrix, beta=beta)
    scan = scan_side_by_side if single else scan_row_by_row
    return scan(state, values, keys, queries, rates, rows, matrix=matrix, beta=beta)


def scan_on_hopper(
    state: Float32[Array, "Z N V S"],
    values: Float[Array, "T N V"],
    keys: Float[Array, "T J S"],
    queries: Float[Array, "T J S"],
    rates: Float32[Array, "T N W"],
    rows: ScanRows,
    *,
    matrix: Float32[Array, "N V S"] | None = None,
    beta: Float32[Array, "T N"] | None = None,
    interpret: bool = False,
) -> tuple[Float[Array, "T N V"], Float32[Array, "Z N V S"]]:
    """Mamba-1 in its own kernel; others in chunks on the tensor cores, or token by token."""
    from pallas_kernels.state_space.mosaic_chunks import mosaic_chunks, takes_chunks
    from pallas_kernels.state_space.mosaic_scan import check_limits, mosaic_scan
    from pallas_kernels.state_space.mosaic_selective import mosaic_selective

    if matrix is not None:
        return mosaic_selective(
            state, values, keys, queries, rates, matrix, rows, interpret=interpret
        )
    check_limits(state, keys, values)
    arrays = state, values, keys, queries, rates, rows
    if takes_chunks(state, values, rows):
        return mosaic_chunks(*arrays, beta=beta, interpret=interpret)
    return mosaic_scan(*arrays, beta=beta, interpret=interpret)


def scan_row_by_row(
    state: Float[Array, "Z N V S"],
    values: Float[Array, "T N V"],
    keys: Float[Array, "T J S"],
    queries: Float[Array, "T J S"],
    rates: Float[Array, "T N W"],
    rows: ScanRows,
    *,
    matrix: Float[Array, "N V S"] | None = None,
    beta: Float[Array, "T N"] | None = None,
    chunk: int = CHUNK,
) -> tuple[Float[Array, "T N V"], Float[Array, "Z N V S"]]:
    """Only rows that have tokens, each in chunks; `chunk` is a power of two.

    With `matrix` every entry has its own decay, a chunk is no product, and it goes by tokens.
    """
    T = values.shape[0]
    C = min(chunk, 2 ** (T.bit_length() - 1))
    arrays = (
        (values, keys, queries, rates) if beta is None else (values, keys, queries, rates, beta)
    )
    few = T if matrix is not None else _FEW
    order = jnp.argsort(rows.length == 0)  # those with tokens first

    def part(first: Array, length: Array, h: Array, y: Array) -> tuple[Array, Array]:
        """The state and the outputs after some of a row's tokens."""

        def by_token(t: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            h, y = carry
            v, k, q, rate, *b = (lax.dynamic_slice_in_dim(x, t, 1) for x in arrays)
            h, out = token_step(h, v, k, q, rate, matrix, *b)
            return h, y.at[t].set(out[0].astype(y.dtype))

        def by_chunk(number: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            h, y = carry
            begin = jnp.minimum(first + number * C, T - C)  # no slice goes past the last token
            token = begin + jnp.arange(C)
            live = (token >= first + number * C) & (token < first + length)
            v, k, q, rate, *b = (lax.dynamic_slice_in_dim(x, begin, C) for x in arrays)
            if rate.shape[-1] > 1 and b:
                h, out = keyed_chunk_step(h, v, k, q, rate, b[0], live)
            else:
                h, out = chunk_step(h, v, k, q, rate[:, :, 0], b[0] if b else None, live)
            old = lax.dynamic_slice_in_dim(y, begin, C)
            out = jnp.where(live[:, None, None], out.astype(y.dtype), old)
            return h, lax.dynamic_update_slice_in_dim(y, out, begin, 0)

        tokens = jnp.where(length <= few, length, 0)
        chunks = jnp.where(length <= few, 0, -(-length // C))
        h, y = lax.fori_loop(first, first + tokens, by_token, (h, y))
        end: tuple[Array, Array] = lax.fori_loop(0, chunks, by_chunk, (h, y))
        return end

    def row(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        (state, y), b = carry, order[index]
        first, length = rows.first[b], rows.length[b]
        h = jnp.where(rows.fresh[b], 0.0, state[rows.read_slots[b]])
        if rows.snapshots is not None:
            after = rows.snapshots.after[b]
            h, y = part(first, after, h, y)
            slot = jnp.where(after > 0, rows.snapshots.slots[b], state.shape[0])
            state = state.at[slot].set(h, mode="drop")
            first, length = first + after, length - after
        h, y = part(first, length, h, y)
        return state.at[rows.slots[b]].set(h), y

    state, y = lax.fori_loop(0, (rows.length > 0).sum(), row, (state, jnp.zeros_like(values)))
    return y, state
