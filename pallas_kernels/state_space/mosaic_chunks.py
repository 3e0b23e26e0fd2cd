"""The scan of long rows for Hopper: a chunk of 64 tokens at a time, on the tensor cores.

    mosaic_chunk_products.py ─> totals, scores, inverse: of every tile, all at once
                                        │ TMA, with k, q, v
    state h [64, S] ─ registers ─┬─ wgmma with k, then inverse ─> u^T     delta rule; else u = v
         one block: a row, head, ├─ wgmma with q, u^T with scores ─> y^T
         64 rows of its state    └─ decayed, and u^T with k ─────> h

The 64 rows of the state are the rows of every product, so what one leaves in registers the next
takes from there, and the block's one warpgroup may have all registers. The products of a block wait
for each other: its time is their latency, and the parallelism rows x heads x V / 64. Operands are
rounded to the values' 16 bits, also those from the state, which itself stays in float32.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Float32

from pallas_kernels.errors import KernelError
from pallas_kernels.mosaic import (
    accumulate,
    cast,
    interpreter,
    load,
    register_product,
    row_numbers,
    spread,
    vector_numbers,
)
from pallas_kernels.state_space.mosaic_chunk_products import CHUNK, SWIZZLED, chunk_products
from pallas_kernels.state_space.mosaic_rows import TILE, Row, each_part, packed_rows
from pallas_kernels.state_space.mosaic_scan import mosaic_scan
from pallas_kernels.state_space.rows import ScanRows

FEW = 8  # rows of up to so many tokens go one by one; a guess, until a GPU has timed it
_STATE_SIZES = (64, 128, 256)
_SHARED_BYTES = 225 * 1024  # of tiles in flight, of one block on a core or of two


def takes_chunks(state: Any, values: Any, rows: ScanRows) -> bool:
    """Whether rows may be long, and their chunks are products of 16-bit numbers.

    Models have states of 64, 128 or 256 columns; narrower ones, float32 and programs of less than
    64 tokens go by tokens, which is right for any and slow for long rows only.

    Raises:
        KernelError: there are T tokens that no last tile of 64 can end with: TMA copies pieces of
            8, from multiples of 8. Steps are padded, and an engine's programs hold multiples of 8.
    """
    T, B, S = values.shape[0], rows.first.shape[0], state.shape[3]
    if T <= B or T < CHUNK or S not in _STATE_SIZES or values.dtype.itemsize != 2:
        return False
    if T % 8:
        raise KernelError(
            f"The scan of many tokens on this GPU takes a multiple of 8 tokens, not {T}."
        )
    return True


def mosaic_chunks(
    state: Float32[Array, "Z N V S"],
    values: Float[Array, "T N V"],
    keys: Float[Array, "T J S"],
    queries: Float[Array, "T J S"],
    rates: Float32[Array, "T N 1"],
    rows: ScanRows,
    *,
    beta: Float32[Array, "T N"] | None = None,
    interpret: bool = False,
) -> tuple[Float[Array, "T N V"], Float32[Array, "Z N V S"]]:
    """`ssm_scan` where `takes_chunks` says so. Short rows are left to `mosaic_scan`."""
    N, V, S = state.shape[1:]
    y, state = mosaic_scan(
        state, values, keys, queries, rates, rows, beta=beta, most=FEW, interpret=interpret
    )
    dtype, delta = values.dtype, beta is not None
    found = chunk_products(keys, queries, rates, beta, rows, interpret=interpret)
    stages = _stages(S, delta)
    pool, outputs = jax.new_ref(state), jax.new_ref(y)
    swizzled = partial(plgpu.SMEM, dtype=dtype, transforms=SWIZZLED)
    plgpu.kernel(
        partial(chunks_kernel, groups=N // keys.shape[1], delta=delta, interpret=interpret),
        out_type=(),
        grid=(rows.first.shape[0], N, V // TILE),
        grid_names=("row", "head", "part"),
        scratch_types=[
            swizzled((CHUNK, TILE)),
            plgpu.SMEM((CHUNK, TILE), dtype),  # in no pieces: any number of tokens goes out
            swizzled((stages, CHUNK, S)),
            swizzled((stages, CHUNK, S)),
            swizzled((stages, CHUNK, TILE)),
            plgpu.SMEM((stages, CHUNK), jnp.float32),
            *[swizzled((stages, CHUNK, CHUNK))] * (1 + delta),
            plgpu.Barrier(num_arrivals=5 + delta, num_barriers=stages),
        ],
        compiler_params=plgpu.CompilerParams(approx_math=True),
        interpret=interpreter(interpret),
    )(
        pool, outputs, values, keys, queries, *(x for x in found if x is not None),
        packed_rows(rows),
    )  # fmt: skip
    return jax.freeze(outputs), jax.freeze(pool)


def _stages(S: int, delta: bool) -> int:
    """As many as fit two blocks on a core; where two tiles do not, as many as fit one."""
    each = 2 * CHUNK * (2 * S + TILE + (1 + delta) * CHUNK)
    shared = _SHARED_BYTES // 2 - 4 * CHUNK * TILE
    return min(4, shared // each if shared >= 2 * each else (2 * shared) // each)


def chunks_kernel(
    # in the GPU's memory
    pool: Any, y: Any, values: Any, keys: Any, queries: Any, totals: Any, scores: Any, *rest: Any,
    groups: int, delta: bool, interpret: bool,
) -> None:  # fmt: skip
    """One block: one row, one head, 64 rows of its state."""
    inverse, (rows, whole, some, *tiles, ready) = rest[:delta], rest[delta:]
    row = Row(rows, lax.axis_index("row"))
    head, part = lax.axis_index("head"), lax.axis_index("part")
    (stages, _, S), T = tiles[0].shape, values.shape[0]
    layout = partial(cast, interpret=interpret)
    mine, group = pl.ds(part * TILE, TILE), lax.div(head, jnp.int32(groups))

    def begin(tile: Any) -> Any:
        return jnp.minimum(tile * CHUNK, T - CHUNK)

    def fetch(tile: Any, slot: Any) -> None:
        tokens = pl.ds(begin(tile), CHUNK)
        sources = [
            keys.at[tokens, group], queries.at[tokens, group], values.at[tokens, head, mine],
            *(x.at[tile, head] for x in (totals, scores, *inverse)),
        ]  # fmt: skip
        for source, target in zip(sources, tiles, strict=True):
            plgpu.copy_gmem_to_smem(source, target.at[slot], ready.at[slot])

    def scan(first: Any, end: Any, h: Any) -> Any:
        first_tile = lax.div(first, jnp.int32(CHUNK))
        last_tile = lax.div(end + CHUNK - 1, jnp.int32(CHUNK))  # one past it
        if row.has_border:
            last_tile = jnp.where(first < end, last_tile, first_tile)

        def step(tile: Any, h: Any) -> Any:
            slot = lax.rem(tile - first_tile, jnp.int32(stages))
            plgpu.barrier_wait(ready.at[slot])
            low = jnp.maximum(first, tile * CHUNK) - begin(tile)
            high = jnp.minimum(end, tile * CHUNK + CHUNK) - begin(tile)
            here = [x.at[slot] for x in tiles]
            before: Any = 0.0
            if row.has_border:
                start = jnp.maximum(row.first, tile * CHUNK) - begin(tile)  # of the sums
                before = jnp.where(low > start, here[3][jnp.maximum(low - 1, 0)], 0.0)
            pl.when(high - low < CHUNK)(partial(_zero_rows_outside, here[0], low, high, interpret))
            h, found = _chunk(h, here, low, high, before, interpret)
            plgpu.wait_smem_to_gmem(0, wait_read_only=True)
            target = y.at[pl.ds(begin(tile), CHUNK), head, mine]
            pl.when(high - low == CHUNK)(partial(_put, found, whole, target))
            pl.when(high - low < CHUNK)(partial(_put_some, found, some, target, low, high))
            pl.when(tile + stages < last_tile)(partial(fetch, tile + stages, slot))
            return h

        for stage in range(stages):
            pl.when(first_tile + stage < last_tile)(partial(fetch, first_tile + stage, stage))
        return lax.fori_loop(first_tile, last_tile, step, h)

    def store(h: Any, slot: Any) -> None:
        for piece, columns in zip(h, _pieces(S), strict=True):
            pool[slot, head, mine, columns] = piece

    def begin_with(columns: Any) -> Any:
        place = pool.at[row.source, head, mine, columns]
        return lax.cond(
            row.fresh > 0,
            lambda: layout(jnp.zeros(place.shape, jnp.float32), plgpu.Layout.WGMMA),
            lambda: layout(load(place), plgpu.Layout.WGMMA),
        )

    @pl.when(row.length > FEW)
    def _more() -> None:
        each_part(row, [begin_with(columns) for columns in _pieces(S)], scan, store)
        plgpu.wait_smem_to_gmem(0)


def _pieces(S: int) -> list[Any]:
    """Columns of the state that are one operand: of more, registers hold no rounded copy."""
    return [pl.ds(column, min(S, 128)) for column in range(0, S, 128)]


def _chunk(
    h: Any, tiles: list[Any], low: Any, high: Any, before: Any, interpret: bool
) -> tuple[Any, Any]:
    """The state after tokens low .. high-1 of a tile, and y^T of all its tokens.

    `before` is what of `totals` is older than the state.
    """
    k, q, v, totals, scores, *inverse = tiles
    by_column, dtype = plgpu.Layout.WGMMA.reduce(0), v.dtype
    pieces = _pieces(k.shape[1])
    place = vector_numbers(CHUNK, by_column, interpret)
    live = (place >= low) & (place < high)
    total, last = cast(load(totals), by_column, interpret), totals[high - 1]

    def read(along: Any) -> Any:
        """What the state before the chunk has along k or q, decayed until the token."""
        found = cast(jnp.zeros((TILE, CHUNK), jnp.float32), plgpu.Layout.WGMMA, interpret)
        for part, piece in zip(h, pieces, strict=True):
            turned = along.at[:, piece].transpose((1, 0))
            found = accumulate(found, part.astype(dtype), turned, interpret)
        return found * spread(jnp.exp(total - before), found)

    written = cast(load(v.transpose((1, 0))).astype(jnp.float32), plgpu.Layout.WGMMA, interpret)
    if inverse:
        written = written - read(k)
    written = jnp.where(spread(live, written), written, 0.0)
    if inverse:
        wide = written.shape[0], written.shape[1]
        written = register_product(written.astype(dtype), inverse[0], wide, interpret)
    found = accumulate(read(q), written.astype(dtype), scores, interpret)
    kept = written * spread(jnp.where(live, jnp.exp(last - total), 0.0), written)
    h = [
        accumulate(part * jnp.exp(last - before), kept.astype(dtype), k.at[:, piece], interpret)
        for part, piece in zip(h, pieces, strict=True)
    ]
    return h, found


def _zero_rows_outside(tile: Any, low: Any, high: Any, interpret: bool) -> None:
    """What is another row's, or nobody's and may be NaN, is written nowhere."""
    for column in range(0, tile.shape[1], 64):
        piece = tile.at[:, pl.ds(column, 64)]
        number = row_numbers(piece.shape, interpret)
        kept = (number >= low) & (number < high)
        piece[...] = jnp.where(kept, piece[...], jnp.zeros_like(piece[...]))
    plgpu.commit_smem()


def _put(found: Any, out: Any, target: Any) -> None:
    """y^T of a tile to the GPU's memory."""
    out.transpose((1, 0))[...] = found.astype(out.dtype)
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(out, target)


def _put_some(found: Any, out: Any, target: Any, low: Any, high: Any) -> None:
    """Tokens low .. high-1 of y^T, in at most six copies of 32, 16, 8 ... of them."""
    out.transpose((1, 0))[...] = found.astype(out.dtype)
    plgpu.commit_smem()

    def put(low: Any, size: int) -> None:
        plgpu.copy_smem_to_gmem(out.at[pl.ds(low, size)], target.at[pl.ds(low, size)])

    for size in (CHUNK >> n for n in range(1, CHUNK.bit_length())):
        here = (high - low) & size
        pl.when(here > 0)(partial(put, low, size))
        low += here
