"""Causal attention of packed chunks over their pages, for Hopper, in Pallas Mosaic GPU.

    tokens of a step  |a a a a a a b b|b b b b b c c .|      blocks of 128 tokens of one query head
                       rows 0-63: warpgroup 0 ─┐
                       rows 64-127: warpgroup 1 ┴─ take turns: one multiplies while the other
    warpgroup 2 ─ TMA ─> tiles of keys, of values         computes its softmax

A block goes through the rows that have tokens in it, one after the other, and through each row's
tiles: first those that all its queries see whole, then those that need a mask. Every block writes
all of its 128 results, so no two blocks write the same token. Rows of fewer than `least` tokens
are left to `paged_decode`, which reads their keys once for all heads of a group.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Int32

from pallas_kernels.attention.reference import MASKED
from pallas_kernels.mosaic import (
    accumulate,
    cast,
    column_numbers,
    interpreter,
    product,
    vector_numbers,
    zero_rows_after,
)  # fmt: skip

BLOCK = 128  # tokens of a block
_HALF = 64  # of a warpgroup: the rows of a tensor core's product
_LOG2E = math.log2(math.e)
# of a thread: two warpgroups that compute, one that fetches; together a core has 512 x 128
_COMPUTING, _FETCHING = 232, 40


def mosaic_ragged(
    q: Float[Array, "T N H"],
    k_pages: Float[Array, "P K S H"],
    v_pages: Float[Array, "P K S H"],
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " T"],
    start: Int32[Array, " B"],
    count: Int32[Array, " B"],
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    least: int,
    sinks: Float[Array, " N"] | None = None,
    interpret: bool = False,
) -> Float[Array, "T N H"]:
    """`ragged_attention` of the rows that have `least` tokens; other tokens give any number."""
    T, N, H = q.shape
    padded = jnp.pad(q, ((0, -T % BLOCK), (0, 0), (0, 0)))
    begins = jnp.arange(padded.shape[0] // BLOCK, dtype=jnp.int32) * BLOCK
    find = partial(jnp.searchsorted, method="compare_all")  # the other methods are loops
    out = plgpu.kernel(
        partial(
            ragged_attention_kernel, scale=scale, window=window, softcap=softcap, least=least,
            has_sinks=sinks is not None, interpret=interpret,
        ),
        out_type=jax.ShapeDtypeStruct(padded.shape, q.dtype),
        grid=(N, begins.size),
        grid_names=("head", "block"),
        num_threads=3,
        thread_name="warpgroup",
        scratch_types=_scratch(H, k_pages.shape[2], q.dtype),
        compiler_params=plgpu.CompilerParams(approx_math=True),
        interpret=interpreter(interpret),
    )(
        padded, k_pages, v_pages, page_table, start, count, positions[jnp.minimum(start, T - 1)],
        find(start + count, begins, side="right").astype(jnp.int32),
        find(start, begins + BLOCK, side="left").astype(jnp.int32),
        *(() if sinks is None else (sinks.astype(jnp.float32),)),
    )  # fmt: skip
    cut: Array = out[:T]
    return cut


def _tile(H: int) -> int:
    """Keys of a tile: as many as leave two stages room beside the queries."""
    return 128 if H <= 128 else 64


def _scratch(H: int, S: int, dtype: Any) -> list[Any]:
    """Shared memory of one block: queries and later results, tiles in flight, barriers."""
    swizzled = (plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128))
    tile = _tile(H)
    stages = 2 if H > 64 else 4
    pages = max(1, tile // S)
    return [
        plgpu.SMEM((2, _HALF, H), dtype, transforms=swizzled),
        plgpu.SMEM((stages, tile, H), dtype, transforms=swizzled),
        plgpu.SMEM((stages, tile, H), dtype, transforms=swizzled),
        plgpu.Barrier(num_barriers=2),
        plgpu.Barrier(num_arrivals=pages, num_barriers=stages),
        plgpu.Barrier(num_arrivals=pages, num_barriers=stages),
        plgpu.Barrier(num_arrivals=2, num_barriers=stages),
        plgpu.Barrier(num_arrivals=2, num_barriers=stages),
        plgpu.Barrier(num_arrivals=2),
    ]


class _Segment(NamedTuple):
    """What one row has in one block. Tiles are counted in the order in which they are visited."""

    low: Any  # its first token, counted from the block's
    high: Any  # one past its last
    position: Any  # where the block's first token would be in the row
    newest: Any  # position of its last token in the block
    first: Any  # its first tile
    whole: Any  # tiles that every query of the block sees whole ...
    first_whole: Any  # ... from this one on
    tiles: Any  # all of them; 0 for a row without tokens here

    def tile(self, index: Any) -> Any:
        """Whole ones first, then those before them and those after them."""
        masked = index - self.whole + self.first
        masked = jnp.where(masked < self.first_whole, masked, masked + self.whole)
        return jnp.where(index < self.whole, self.first_whole + index, masked)


def _segment(
    begin: Any, start: Any, count: Any, base: Any, *, tile: int, window: Any, least: int
) -> _Segment:
    low, high = jnp.maximum(start - begin, 0), jnp.minimum(start + count - begin, BLOCK)
    position = base + begin - start
    oldest, newest = position + low, position + high - 1
    size = jnp.int32(tile)
    last = lax.div(newest, size) + 1
    seen_by_all = lax.div(oldest + 1, size)  # one past the last such tile
    first, first_whole = jnp.int32(0), jnp.int32(0)
    if window is not None:
        first = lax.div(jnp.maximum(oldest - window + 1, 0), size)
        first_whole = lax.div(jnp.maximum(newest - window + 1, 0) + size - 1, size)
    whole = jnp.where((low == 0) & (high == BLOCK), seen_by_all - first_whole, 0)
    whole = jnp.maximum(whole, 0)
    tiles = jnp.where((count >= least) & (high > low), last - first, 0)
    return _Segment(low, high, position, newest, first, whole, first_whole, tiles)


def ragged_attention_kernel(
    # in the GPU's memory
    q_all: Any, k_all: Any, v_all: Any, table: Any, start: Any, count: Any, base: Any,
    first_row: Any, end_row: Any,
    # then the block's
    *rest: Any,
    scale: Any, window: Any, softcap: Any, least: int, has_sinks: bool, interpret: bool,
) -> None:  # fmt: skip
    """One block: 128 tokens of one query head; three warpgroups."""
    sinks, (out, q_tiles, k, v, *barriers) = rest[:has_sinks], rest[has_sinks:]
    q_ready, k_ready, v_ready, k_free, v_free, turn = barriers
    me, head, block = (lax.axis_index(name) for name in ("warpgroup", "head", "block"))
    stages, tile, H = k.shape
    S = k_all.shape[2]
    groups = q_all.shape[1] // k_all.shape[1]
    block = out.shape[0] // BLOCK - 1 - block  # later tokens see more keys: they begin first
    begin = block * BLOCK
    rows = first_row[block], end_row[block]

    def segment(row: Any) -> _Segment:
        numbers = begin, start[row], count[row], base[row]
        return _segment(*numbers, tile=tile, window=window, least=least)

    @pl.when(me == 2)
    def _fetch() -> None:
        plgpu.set_max_registers(_FETCHING, action="decrease")

        def fetch(row: Any, part: _Segment, index: Any, step: Any) -> Any:
            slot = lax.rem(step, jnp.int32(stages))
            number = part.tile(index)
            for source, tiles, ready, free in (
                (k_all, k, k_ready, k_free), (v_all, v, v_ready, v_free),
            ):  # fmt: skip
                pl.when(step >= stages)(partial(plgpu.barrier_wait, free.at[slot]))
                for piece in range(max(1, tile // S)):
                    key = jnp.minimum(number * tile + piece * S, part.newest)
                    page = table[row, lax.div(key, jnp.int32(S))]
                    offset = lax.rem(number * tile, jnp.int32(S))
                    slots = pl.ds(offset, tile) if tile < S else slice(None)
                    plgpu.copy_gmem_to_smem(
                        source.at[page, lax.div(head, jnp.int32(groups)), slots],
                        tiles.at[slot, pl.ds(piece * S, min(S, tile))],
                        ready.at[slot],
                    )
            return step + 1

        def fetch_row(row: Any, step: Any) -> Any:
            part = segment(row)
            return lax.fori_loop(0, part.tiles, partial(fetch, row, part), step)

        steps = lax.fori_loop(*rows, fetch_row, jnp.int32(0))
        for back in range(stages):  # what is free at the end is nobody's business but a barrier's
            slot = lax.rem(steps + back, jnp.int32(stages))
            for free in (k_free, v_free):
                pl.when(steps + back >= stages)(partial(plgpu.barrier_wait, free.at[slot]))

    @pl.when(me < 2)
    def _compute() -> None:
        plgpu.set_max_registers(_COMPUTING, action="increase")
        tokens = pl.ds(begin + me * _HALF, _HALF)
        q = q_tiles.at[me]
        plgpu.copy_gmem_to_smem(q_all.at[tokens, head], q, q_ready.at[me])
        plgpu.barrier_wait(q_ready.at[me])
        attend = partial(
            _tile_step, me, q, k, v, (k_ready, v_ready, k_free, v_free, turn),
            scale=scale, window=window, softcap=softcap, interpret=interpret,
        )  # fmt: skip

        layout, by_row = partial(cast, interpret=interpret), plgpu.Layout.WGMMA.reduce(1)
        place = vector_numbers(_HALF, by_row, interpret) + me * _HALF

        def attend_row(row: Any, carry: Any) -> Any:
            part = segment(row)
            mine = (place >= part.low) & (place < part.high)
            last = jnp.where(mine, place + part.position, -1)
            carry = lax.fori_loop(0, part.whole, partial(attend, part, None), carry)
            return lax.fori_loop(part.whole, part.tiles, partial(attend, part, last), carry)

        pl.when(me == 1)(partial(_take_turns, turn))
        acc, _, total, _ = lax.fori_loop(*rows, attend_row, (
            layout(jnp.zeros((_HALF, H), jnp.float32), plgpu.Layout.WGMMA),
            layout(jnp.full((_HALF,), sinks[0][head] * _LOG2E if sinks else MASKED), by_row),
            layout(jnp.full((_HALF,), 1.0 if sinks else 0.0, jnp.float32), by_row),
            jnp.int32(0),
        ))  # fmt: skip
        pl.when(me == 0)(partial(_take_turns, turn))
        q[...] = (acc / _across(jnp.maximum(total, 1e-30), acc)).astype(q.dtype)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(q, out.at[tokens, head])
        plgpu.wait_smem_to_gmem(0)


def _tile_step(
    me: Any, q: Any, k: Any, v: Any, barriers: Any, part: _Segment, last: Any, index: Any,
    carry: Any, *, scale: Any, window: Any, softcap: Any, interpret: bool,
) -> Any:  # fmt: skip
    """Online softmax of a warpgroup's queries over one tile; `last` None: each sees all of it."""
    k_ready, v_ready, k_free, v_free, turn = barriers
    acc, peak, total, step = carry
    (stages, tile, _), factor = k.shape, scale * _LOG2E
    slot, key = lax.rem(step, jnp.int32(stages)), part.tile(index) * tile
    if last is not None:  # the other warpgroup is half a step behind: this one clears for both
        plgpu.barrier_wait(v_ready.at[slot])
        stale = (me == 0) & (key + tile > part.newest + 1)
        pl.when(stale)(partial(zero_rows_after, v.at[slot], part.newest - key, interpret))
    plgpu.barrier_wait(k_ready.at[slot])
    keys = k.at[slot].transpose((1, 0))
    scores = product(q, keys, (_HALF, tile), partial(_take_turns, turn))
    plgpu.barrier_arrive(k_free.at[slot])
    if softcap is not None:
        # the hardware's tanh, 2^-11 near; by exponentials it takes more registers than there are
        scores, factor = jnp.tanh(scores * (scale / softcap)), softcap * _LOG2E
    if last is not None:
        scores = jnp.where(_seen(last, key, window, scores, interpret), scores, -jnp.inf)
    new_peak = jnp.maximum(peak, scores.max(axis=1) * factor)
    decay = jnp.exp2(peak - new_peak)
    weight = jnp.exp2(scores * factor - _across(new_peak, scores))
    total = total * decay + weight.sum(axis=1)
    acc, rounded = acc * _across(decay, acc), weight.astype(v.dtype)
    acc, total, new_peak, rounded = lax.optimization_barrier((acc, total, new_peak, rounded))
    plgpu.barrier_arrive(turn)
    if last is None:
        plgpu.barrier_wait(v_ready.at[slot])
    plgpu.barrier_wait(turn)
    acc = accumulate(acc, rounded, v.at[slot], interpret)
    plgpu.barrier_arrive(v_free.at[slot])
    return acc, new_peak, total, step + 1


def _take_turns(turn: Any) -> None:
    """Wait for the other warpgroup; one of them is half a step ahead."""
    plgpu.barrier_arrive(turn)
    plgpu.barrier_wait(turn)


def _seen(last: Any, key: Any, window: Any, like: Any, interpret: bool) -> Any:
    """Which queries see which keys, by the last that each query sees (-1: none): [64, tile]."""
    before = _across(last, like) - (column_numbers(like.shape, interpret) + key)
    return before >= 0 if window is None else (before >= 0) & (before < window)


def _across(vector: Any, like: Any) -> Any:
    """A number a row as an array of the shape of `like`."""
    return lax.broadcast_in_dim(vector, like.shape, [0])
