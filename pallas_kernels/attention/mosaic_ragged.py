"""Causal attention of packed chunks over their pages, for Hopper, in Pallas Mosaic GPU.

    tokens of a step  |a a a a a a b b|b b b b b c c .|      blocks of 128 tokens of one query head
                       rows 0-63: warpgroup 0 ─┐
                       rows 64-127: warpgroup 1 ┴─ take turns: one multiplies while the other
    warpgroup 2 ─ TMA ─> tiles of keys, of values         computes its softmax

A block goes through the rows that have tokens in it, one after the other, and through each row's
tiles: first those that all its queries see whole, then those that need a mask. Every block writes
all of its 128 results, so no two blocks write the same token. Of heads wider than 256 a block is 64
tokens, which both warpgroups score, and each sums half of the columns: the registers of one hold no
more. Rows of fewer than `least` tokens
are left to `paged_decode`, which reads their keys once for all heads of a group. What warpgroup 2
does, for pages of 8 bits too, is in `mosaic_ragged_fetch.py`.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Float32, Int32, Num

from pallas_kernels.attention.mosaic_ragged_fetch import (
    Eight,
    Kind,
    copy_tile,
    eight_scratch,
    fetch_8,
    fetch_16,
    finish,
)
from pallas_kernels.attention.mosaic_tiles import swizzled
from pallas_kernels.attention.reference import MASKED
from pallas_kernels.cache.quantise import is_quantised
from pallas_kernels.mosaic import (
    accumulate,
    across,
    cast,
    column_numbers,
    interpreter,
    product,
    vector_numbers,
    zero_rows_after,
)

_HALF = 64  # tokens of a warpgroup: the rows of a tensor core's product
_WIDEST = 256  # columns of results that a warpgroup's registers hold, and of keys their addresses
_LOG2E = math.log2(math.e)
# of a thread: two warpgroups that compute, one that fetches; together a core has 512 x 128
_COMPUTING, _FETCHING = 232, 40
_COMPUTING_8, _FETCHING_8 = 216, 72  # where that one converts
_MOST = 100.0  # octaves by which a sink counts for more than a row's keys: the rest is nothing


def mosaic_ragged(
    q: Float[Array, "T N H"],
    k_pages: Num[Array, "P K S H"],
    v_pages: Num[Array, "P K S H"],
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
    slopes: Float[Array, " N"] | None = None,
    k_scales: Float32[Array, "P Ks S"] | None = None,
    v_scales: Float32[Array, "P Ks S"] | None = None,
    interpret: bool = False,
) -> Float[Array, "T N H"]:
    """`ragged_attention` of the rows that have `least` tokens; other tokens give any number."""
    T, N, H = q.shape
    operand, sloped = _operand(q.dtype, k_pages.dtype), slopes is not None
    size = _HALF * _parts(H)
    padded = jnp.pad(q.astype(operand), ((0, -T % size), (0, 0), (0, 0)))
    begins = jnp.arange(padded.shape[0] // size, dtype=jnp.int32) * size
    find = partial(jnp.searchsorted, method="compare_all")  # the other methods are loops
    out = plgpu.kernel(
        partial(
            ragged_attention_kernel, scale=scale, window=window, softcap=softcap, least=least,
            result=q.dtype, has_sinks=sinks is not None, has_slopes=sloped,
            scaled=k_scales is not None, interpret=interpret,
        ),
        out_type=jax.ShapeDtypeStruct(padded.shape, operand),
        grid=(N, begins.size),
        grid_names=("head", "block"),
        num_threads=3,
        thread_name="warpgroup",
        scratch_types=_scratch(k_pages.shape[2], q.dtype, k_pages.dtype, H, _tile(H, sloped)),
        compiler_params=plgpu.CompilerParams(approx_math=True),
        interpret=interpreter(interpret),
    )(
        padded, k_pages, v_pages, page_table, start, count, positions[jnp.minimum(start, T - 1)],
        find(start + count, begins, side="right").astype(jnp.int32),
        find(start, begins + size, side="left").astype(jnp.int32),
        *(x.astype(jnp.float32) for x in (sinks, slopes) if x is not None),
        *(() if k_scales is None else (k_scales, v_scales)),
    )  # fmt: skip
    cut: Array = lax.bitcast_convert_type(out[:T], q.dtype)
    return cut


def _parts(H: int) -> int:
    """Into which the two warpgroups divide a block's tokens; 1: they divide columns."""
    return 2 if H <= _WIDEST else 1


def _tile(H: int, sloped: bool) -> int:
    """Keys of a tile: as many as leave two stages room beside the queries, and slopes registers."""
    return 128 if (64 if sloped else 128) >= H else 64


def _operand(dtype: Any, pages_dtype: Any) -> Any:
    """What is multiplied: of 8 bits, bfloat16, which holds a number times any scale."""
    return jnp.dtype(jnp.bfloat16 if is_quantised(pages_dtype) else dtype)


def _scratch(S: int, dtype: Any, pages_dtype: Any, H: int, tile: int) -> list[Any]:
    """Shared memory of one block: queries and later results, tiles in flight, barriers."""
    operand, scaled = _operand(dtype, pages_dtype), is_quantised(pages_dtype)
    transforms = swizzled(H, operand)
    stages, parts = 2**15 // (tile * H), _parts(H)
    arrivals = 1 if scaled else max(1, tile // S)
    return [
        plgpu.SMEM((parts, _HALF, H), operand, transforms=transforms),
        plgpu.SMEM((stages, tile, H), operand, transforms=transforms),
        plgpu.SMEM((stages, tile, H), operand, transforms=transforms),
        plgpu.Barrier(num_barriers=parts),
        plgpu.Barrier(num_arrivals=arrivals, num_barriers=stages),
        plgpu.Barrier(num_arrivals=arrivals, num_barriers=stages),
        plgpu.Barrier(num_arrivals=2, num_barriers=stages),
        plgpu.Barrier(num_arrivals=2, num_barriers=stages),
        plgpu.Barrier(num_arrivals=2),
        *(eight_scratch(H, tile, S, pages_dtype) if scaled else ()),
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
    begin: Any, start: Any, count: Any, base: Any, *, block: int, tile: int, window: Any, least: int
) -> _Segment:
    low, high = jnp.maximum(start - begin, 0), jnp.minimum(start + count - begin, block)
    position = base + begin - start
    oldest, newest = position + low, position + high - 1
    size = jnp.int32(tile)
    last = lax.div(newest, size) + 1
    seen_by_all = lax.div(oldest + 1, size)  # one past the last such tile
    first, first_whole = jnp.int32(0), jnp.int32(0)
    if window is not None:
        first = lax.div(jnp.maximum(oldest - window + 1, 0), size)
        first_whole = lax.div(jnp.maximum(newest - window + 1, 0) + size - 1, size)
    whole = jnp.where((low == 0) & (high == block), seen_by_all - first_whole, 0)
    whole = jnp.maximum(whole, 0)
    tiles = jnp.where((count >= least) & (high > low), last - first, 0)
    return _Segment(low, high, position, newest, first, whole, first_whole, tiles)


def ragged_attention_kernel(
    # in the GPU's memory
    q_all: Any, k_all: Any, v_all: Any, table: Any, start: Any, count: Any, base: Any,
    first_row: Any, end_row: Any,
    # then the block's
    *rest: Any,
    scale: Any, window: Any, softcap: Any, least: int, result: Any, has_sinks: bool,
    has_slopes: bool, scaled: bool, interpret: bool,
) -> None:  # fmt: skip
    """One block: 128 tokens of one query head, or 64 of a wide one; three warpgroups."""
    by_head = has_sinks + has_slopes
    sinks, slopes = rest[:has_sinks], rest[has_sinks:by_head]
    scales, rest = rest[by_head : by_head + 2 * scaled], rest[by_head + 2 * scaled :]
    out, q_tiles, k, v, *barriers = rest
    q_ready, k_ready, v_ready, k_free, v_free, turn = barriers[:6]
    eight = Eight(*barriers[6:]) if scaled else None
    me, head, block = (lax.axis_index(name) for name in ("warpgroup", "head", "block"))
    (parts, _, H), tile = q_tiles.shape, k.shape[1]
    size, width = parts * _HALF, parts * H // 2
    groups = q_all.shape[1] // k_all.shape[1]
    block = out.shape[0] // size - 1 - block  # later tokens see more keys: they begin first
    begin = block * size

    def segment(row: Any) -> _Segment:
        numbers = begin, start[row], count[row], base[row]
        return _segment(*numbers, block=size, tile=tile, window=window, least=least)

    def each_row(visit: Any, carry: Any) -> Any:
        """From row to row that has tokens here."""
        return lax.fori_loop(first_row[block], end_row[block], visit, carry)

    @pl.when(me == 2)
    def _fetch() -> None:
        plgpu.set_max_registers(_FETCHING_8 if scaled else _FETCHING, action="decrease")
        k_scales, v_scales = scales or (None, None)
        kinds = [
            Kind(k_all, k_scales, k, k_ready, k_free), Kind(v_all, v_scales, v, v_ready, v_free),
        ]  # fmt: skip
        fetch = partial(fetch_16, kinds)
        if eight is not None:
            fetch = partial(fetch_8, kinds, eight, interpret)
        kv_head = lax.div(head, jnp.int32(groups))

        def fetch_tile(row: Any, part: _Segment, index: Any, step: Any) -> Any:
            number, newest = part.tile(index), part.newest
            fetch(lambda copies: copy_tile(copies, table, row, kv_head, number, newest), step)
            return step + 1

        def fetch_row(row: Any, step: Any) -> Any:
            part = segment(row)
            return lax.fori_loop(0, part.tiles, partial(fetch_tile, row, part), step)

        finish(kinds, eight, interpret, each_row(fetch_row, jnp.int32(0)))

    @pl.when(me < 2)
    def _compute() -> None:
        plgpu.set_max_registers(_COMPUTING_8 if scaled else _COMPUTING, action="increase")
        half, columns = (
            (me, slice(None)) if parts == 2 else (lax.div(me, 2), pl.ds(me * width, width))
        )
        tokens, q = pl.ds(begin + half * _HALF, _HALF), q_tiles.at[half]
        get = partial(plgpu.copy_gmem_to_smem, q_all.at[tokens, head], q, q_ready.at[half])
        pl.when(me < parts)(get)
        plgpu.barrier_wait(q_ready.at[half])
        attend = partial(
            _tile_step, me, q, k, v, columns, (k_ready, v_ready, k_free, v_free, turn),
            slopes[0][head] if slopes else None,
            scale=scale, window=window, softcap=softcap, interpret=interpret,
        )  # fmt: skip

        layout, by_row = partial(cast, interpret=interpret), plgpu.Layout.WGMMA.reduce(1)
        place = vector_numbers(_HALF, by_row, interpret) + half * _HALF

        def attend_row(row: Any, carry: Any) -> Any:
            part = segment(row)
            mine = (place >= part.low) & (place < part.high)
            last = jnp.where(mine, place + part.position, -1)
            carry = lax.fori_loop(0, part.whole, partial(attend, part, None), carry)
            return lax.fori_loop(part.whole, part.tiles, partial(attend, part, last), carry)

        pl.when(me == 1)(partial(_take_turns, turn))
        peak, total = (layout(jnp.full((_HALF,), x), by_row) for x in (MASKED, 0.0))
        acc = layout(jnp.zeros((_HALF, width), jnp.float32), plgpu.Layout.WGMMA)
        acc, peak, total, _ = each_row(attend_row, (acc, peak, total, jnp.int32(0)))
        if sinks:  # keys that are seen by all, whose values are nothing
            total += jnp.exp2(jnp.minimum(sinks[0][head] * _LOG2E - peak, _MOST))
        pl.when(me == 0)(partial(_take_turns, turn))
        acc = (acc / across(jnp.maximum(total, 1e-30), acc)).astype(result)
        # what was of queries, which nobody reads any more, holds results
        q[:, columns] = lax.bitcast_convert_type(acc, q.dtype)
        plgpu.commit_smem()
        together = _HALF if parts == 2 else 8  # rows whose columns lie side by side
        for row in range(0, _HALF, together):
            rows = pl.ds(begin + half * _HALF + row, together)
            results = q.at[pl.ds(row, together), columns]
            plgpu.copy_smem_to_gmem(results, out.at[rows, head, columns])
        plgpu.wait_smem_to_gmem(0)


def _tile_step(
    me: Any, q: Any, k: Any, v: Any, columns: Any, barriers: Any, slope: Any, part: _Segment,
    last: Any, index: Any, carry: Any, *, scale: Any, window: Any, softcap: Any, interpret: bool,
) -> Any:  # fmt: skip
    """Online softmax of a warpgroup's queries over one tile; `last` None: each sees all of it."""
    k_ready, v_ready, k_free, v_free, turn = barriers
    acc, peak, total, step = carry
    (stages, tile, _), factor = k.shape, scale * _LOG2E
    slot, key = lax.rem(step, jnp.int32(stages)), part.tile(index) * tile

    def clear(mine: Any) -> None:
        plgpu.barrier_wait(v_ready.at[slot])
        stale = mine & (key + tile > part.newest + 1)
        used = v.at[slot, :, columns]
        pl.when(stale)(partial(zero_rows_after, used, part.newest - key, interpret))

    early = last is not None and stages > 1
    if early:  # the other warpgroup is half a step behind: this one clears for both
        clear(me == 0)
    plgpu.barrier_wait(k_ready.at[slot])
    scores = _scores(q, k.at[slot], partial(_take_turns, turn), interpret)
    plgpu.barrier_arrive(k_free.at[slot])
    if softcap is not None:
        # the hardware's tanh, 2^-11 near; by exponentials it takes more registers than there are
        scores, factor = jnp.tanh(scores * (scale / softcap)), softcap * _LOG2E
    if slope is not None:  # softmax does not see that distances are not from each query
        ago = column_numbers(scores.shape, interpret) + (key - part.newest)
        scores += ago.astype(jnp.float32) * (slope * (_LOG2E / factor))
    if last is not None:
        scores = jnp.where(_seen(last, key, window, scores, interpret), scores, -jnp.inf)
    new_peak = jnp.maximum(peak, scores.max(axis=1) * factor)
    decay = jnp.exp2(peak - new_peak)
    weight = jnp.exp2(scores * factor - across(new_peak, scores))
    total = total * decay + weight.sum(axis=1)
    acc, rounded = acc * across(decay, acc), weight.astype(v.dtype)
    acc, total, new_peak, rounded = lax.optimization_barrier((acc, total, new_peak, rounded))
    plgpu.barrier_arrive(turn)
    if last is None:
        plgpu.barrier_wait(v_ready.at[slot])
    plgpu.barrier_wait(turn)
    if last is not None and not early:  # each has columns of its own, and waited for the one tile
        clear(True)
    acc = accumulate(acc, rounded, v.at[slot, :, columns], interpret)
    plgpu.barrier_arrive(v_free.at[slot])
    return acc, new_peak, total, step + 1


def _scores(q: Any, keys: Any, while_multiplying: Any, interpret: bool) -> Any:
    """Of each query and key; of wide heads in pieces, in a loop that stays one."""
    shape, H = (_HALF, keys.shape[0]), q.shape[1]
    if H <= _WIDEST:
        return product(q, keys.transpose((1, 0)), shape, while_multiplying)

    def add(piece: Any, scores: Any) -> Any:
        columns = pl.ds(piece * _WIDEST, _WIDEST)
        return accumulate(
            scores, q.at[:, columns], keys.at[:, columns].transpose((1, 0)), interpret
        )

    start = cast(jnp.zeros(shape, jnp.float32), plgpu.Layout.WGMMA, interpret)
    scores = lax.fori_loop(0, H // _WIDEST, add, start)
    while_multiplying()
    return scores


def _take_turns(turn: Any) -> None:
    """Wait for the other warpgroup; one of them is half a step ahead."""
    plgpu.barrier_arrive(turn)
    plgpu.barrier_wait(turn)


def _seen(last: Any, key: Any, window: Any, like: Any, interpret: bool) -> Any:
    """Which queries see which keys, by the last that each query sees (-1: none): [64, tile]."""
    before = across(last, like) - (column_numbers(like.shape, interpret) + key)
    return before >= 0 if window is None else (before >= 0) & (before < window)
