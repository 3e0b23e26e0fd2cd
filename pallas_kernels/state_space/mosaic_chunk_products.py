"""What a chunk of tokens needs of itself and not of the state before it, for Hopper.

    k [64, S] ─┬─ wgmma with q ─ decays, mask ──────────────────────> scores^T
               └─ wgmma with k ─ decays, mask ─ inverse by doubling ─> inverse^T    delta rule
    rates ───── sums from the start of the row or of the tile ──────> totals

A block is one tile of 64 packed tokens and one head, whatever rows the tile holds: what belongs to
different rows is masked. All tiles go at once; only `mosaic_chunks.py` must go one after the other.
The mathematics is that of `chunked.py`, transposed: a row is who writes, a column who reads.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Float32

from pallas_kernels.mosaic import (
    cast,
    column_numbers,
    interpreter,
    load,
    product,
    register_product,
    row_numbers,
    spread,
)
from pallas_kernels.state_space.chunked import LEAST_RATE
from pallas_kernels.state_space.rows import ScanRows

CHUNK = 64  # tokens of a tile: the rows of one product
SWIZZLED = (plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128))  # for the tensor cores


class ChunkProducts(NamedTuple):
    """Of every tile I and head. Tile i begins at token 64 i; the last, if not whole, at T - 64."""

    totals: Float32[Array, "I N C"]  # sum of the rates up to each token
    scores: Float[Array, "I N C C"]  # [written, read]
    inverse: Float[Array, "I N C C"] | None  # times beta of what is written


def chunk_products(
    keys: Float[Array, "T J S"],
    queries: Float[Array, "T J S"],
    rates: Float32[Array, "T N 1"],
    beta: Float32[Array, "T N"] | None,
    rows: ScanRows,
    *,
    interpret: bool = False,
) -> ChunkProducts:
    """The products of every tile, in the limits of `check_chunks`."""
    (T, N), (J, S), delta = rates.shape[:2], keys.shape[1:], beta is not None
    tiles, dtype = -(-T // CHUNK), keys.dtype
    token = jnp.arange(T, dtype=jnp.int32)[:, None]
    mine = (rows.first <= token) & (token < rows.first + rows.length)  # [T, B]
    start = jnp.where(mine, rows.first, T).min(axis=1)
    square = jax.ShapeDtypeStruct((tiles, N, CHUNK, CHUNK), dtype)
    tile = plgpu.SMEM((CHUNK, S), dtype, transforms=SWIZZLED)
    totals, *squares = plgpu.kernel(
        partial(chunk_products_kernel, groups=N // J, delta=delta, interpret=interpret),
        out_type=[jax.ShapeDtypeStruct((tiles, N, CHUNK), jnp.float32), *[square] * (1 + delta)],
        grid=(tiles, N),
        grid_names=("tile", "head"),
        scratch_types=[
            tile, tile,
            plgpu.SMEM((4, CHUNK), jnp.float32),
            plgpu.SMEM((CHUNK, CHUNK), dtype, transforms=SWIZZLED),
            *[plgpu.SMEM((CHUNK, CHUNK), jnp.float16, transforms=SWIZZLED)] * (2 * delta),
            plgpu.Barrier(num_arrivals=2),
        ],
        compiler_params=plgpu.CompilerParams(approx_math=True),
        interpret=interpreter(interpret),
    )(keys, queries, rates, start, *(() if beta is None else (beta,)))  # fmt: skip
    return ChunkProducts(totals, squares[0], squares[1] if delta else None)


def chunk_products_kernel(
    keys: Any, queries: Any, rates: Any, start: Any, *rest: Any,
    groups: int, delta: bool, interpret: bool,
) -> None:  # fmt: skip
    """One block: one tile, one head."""
    beta, rest = rest[:delta], rest[delta:]
    (totals, scores, *inverse), (k, q, numbers, out, *work, ready) = (
        rest[: 2 + delta], rest[2 + delta :],
    )  # fmt: skip
    tile, head = lax.axis_index("tile"), lax.axis_index("head")
    begin = jnp.minimum(tile * CHUNK, start.shape[0] - CHUNK)
    tokens, group = pl.ds(begin, CHUNK), lax.div(head, jnp.int32(groups))
    layout = partial(cast, interpret=interpret)
    by_column, by_row = plgpu.Layout.WGMMA.reduce(0), plgpu.Layout.WGMMA.reduce(1)
    shape = (CHUNK, CHUNK)
    row, column = row_numbers(shape, interpret), column_numbers(shape, interpret)

    def as_columns(place: int, vector: Any) -> Any:
        """A number a row as a number a column."""
        numbers[place] = vector
        plgpu.commit_smem()
        return spread(layout(load(numbers.at[place]), by_column), row)

    def as_rows(vector: Any) -> Any:
        return lax.broadcast_in_dim(vector, shape, [0])

    def each(ref: Any) -> Any:
        return layout(load(ref), by_row)

    plgpu.copy_gmem_to_smem(keys.at[tokens, group], k, ready)
    plgpu.copy_gmem_to_smem(queries.at[tokens, group], q, ready)
    # the first token, of this tile, of the row that a token is of; itself and later for padding
    low = jnp.maximum(each(start.at[tokens]), tile * CHUNK) - begin
    low = low.astype(jnp.float32)
    rate = jnp.maximum(each(rates.at[tokens, head, 0]), LEAST_RATE)
    before = (column <= row) & (column.astype(jnp.float32) >= as_rows(low))
    total = jnp.sum(jnp.where(before, as_columns(0, rate), 0.0), axis=1)
    totals[tile, head] = total
    decay = jnp.exp(as_columns(1, total) - as_rows(total))
    seen = (row <= column) & (row.astype(jnp.float32) >= as_columns(2, low))
    plgpu.barrier_wait(ready)
    found = product(k, q.transpose((1, 0)), shape)
    out[...] = jnp.where(seen, found * decay, 0.0).astype(out.dtype)
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(out, scores.at[tile, head])
    if delta:
        strength = each(beta[0].at[tokens, head])
        found = product(k, k.transpose((1, 0)), shape) * decay * as_columns(3, strength)
        above = jnp.where(seen & (row < column), found, 0.0)
        whole = _unit_inverse(above, row, column, work, interpret)
        mine = as_rows(low) <= row.astype(jnp.float32)
        plgpu.wait_smem_to_gmem(0)
        out[...] = jnp.where(mine, whole * as_rows(strength), 0.0).astype(out.dtype)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(out, inverse[0].at[tile, head])
    plgpu.wait_smem_to_gmem(0)


def _unit_inverse(above: Any, row: Any, column: Any, work: Any, interpret: bool) -> Any:
    """(I + above)^-1, as `chunked.unit_inverse` of its transpose.

    With normalised keys no entry of an inverse exceeds 1: float16 serves them best.
    """
    inverse_tile, product_tile = work

    def blocks(size: int) -> Any:
        bits = jnp.int32(size)
        mine, theirs = lax.div(row, bits), lax.div(column, bits)
        return jnp.where((theirs == mine + 1) & (lax.rem(mine, jnp.int32(2)) == 0), above, 0.0)

    def put(tile: Any, value: Any) -> None:
        tile[...] = value.astype(tile.dtype)
        plgpu.commit_smem()

    inverse = jnp.where(row == column, 1.0, 0.0) - blocks(1)
    size = 2
    while size < CHUNK:
        put(inverse_tile, inverse)
        half = inverse.astype(jnp.float16)
        part = blocks(size).astype(jnp.float16)
        put(product_tile, register_product(part, inverse_tile, above.shape, interpret))
        inverse -= register_product(half, product_tile, above.shape, interpret)
        size *= 2
    return inverse
