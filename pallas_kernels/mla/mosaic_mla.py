"""Latent attention with absorbed weights, for Hopper, in Pallas Mosaic GPU.

    page table ─ TMA ─> latents of 32 keys [32, 512 + 64], read once, keys and values both

    warpgroup 0:  even tile ─ q.k^T ─ softmax ─> weights 0 ┐    ┌> out[:, :256]
    warpgroup 1:  odd tile  ─ q.k^T ─ softmax ─> weights 1 ┴────┴> out[:, 256:]
    warpgroup 2:  the copies of later tiles

A block is 64 queries, heads x tokens: the rows of the tensor core's product. Its 64 x 512 results
fill the registers of two warpgroups, so each scores its own keys and then sums its half of the
columns over both's. Fewer than 64 heads leave rows idle, which memory hides:

    heads of a device    16   64   128 (two blocks share their latents in the second-level cache)
    products / byte      30  121   242, and an H200 does 206 in the time that it reads a byte

Shared memory holds the queries (72 KiB) and four tiles (144 KiB): one block on a core.
"""

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Float32, Int32

from pallas_kernels.attention.query_blocks import QueryBlocks
from pallas_kernels.attention.reference import MASKED
from pallas_kernels.mla.sizes import LATENT, ROTARY, ROWS, blocks_a_token, padded_heads
from pallas_kernels.mosaic import (
    accumulate_all,
    cast,
    column_numbers,
    interpreter,
    load_as,
    product_sum,
    row_numbers,
)

TILE = 32  # keys of a copy and of a warpgroup's turn
STAGES = 4  # tiles in shared memory: two being used, two in flight
_HALF = LATENT // 2  # columns of a warpgroup's results
# of a thread: two warpgroups that compute, one that fetches; together a core has 512 x 128
_COMPUTING, _FETCHING = 232, 48
_LOG2E = math.log2(math.e)


def mosaic_mla_decode(
    q: Float[Array, "B N H"],
    latent_pages: Float[Array, "P S H"],
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " B"],
    *,
    scale: float,
    splits: int,
    interpret: bool = False,
) -> Float[Array, "B N V"]:
    """`mla_decode` in the limits of `check_latents`. A row at position -1 gives zeros.

    `interpret` runs it without a GPU, watching for races.
    """
    parts, sums = _attend(
        q, latent_pages, page_table, positions, None,
        scale=scale, splits=splits, interpret=interpret,
    )  # fmt: skip
    if splits == 1:
        return parts[0, :, : q.shape[1]]
    sums = sums.reshape(splits, 2, q.shape[0], -1)[..., : parts.shape[2]]
    return _combine(parts, sums)[:, : q.shape[1]].astype(q.dtype)


def mosaic_mla_ragged(
    q: Float[Array, "T N H"],
    latent_pages: Float[Array, "P S H"],
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " T"],
    *,
    blocks: QueryBlocks,
    scale: float,
    interpret: bool = False,
) -> Float[Array, "T N V"]:
    """`mla_ragged` in the limits of `check_latents`; tokens of no block are left unwritten."""
    parts, _ = _attend(
        q, latent_pages, page_table, positions, blocks, scale=scale, splits=1, interpret=interpret
    )  # fmt: skip
    return parts[0, :, : q.shape[1]]


class _Plan(NamedTuple):
    """How queries are divided into blocks. The same for all blocks."""

    scale: float  # of scores in base 2
    tokens: int  # of a block
    heads: int  # of a token in a block
    parts: int  # blocks that share a token
    places: int  # tokens of a block of queries; blocks of it follow each other
    decode: bool  # token t is row t
    splits: int
    interpret: bool


def _attend(
    q: Array, latent_pages: Array, page_table: Array, positions: Array,
    query_blocks: QueryBlocks | None, *, scale: float, splits: int, interpret: bool,
) -> tuple[Array, Array]:  # fmt: skip
    """Results of each split [splits, T, N', V], and their peaks and totals [splits, 2, blocks*64].

    N' is `padded_heads(N)`. Without `query_blocks` no array is made that says where tokens lie.
    """
    T, given, H = q.shape
    N = padded_heads(given)
    M, Q = (T, 1) if query_blocks is None else query_blocks.tokens.shape
    tokens = min(Q, max(1, ROWS // N))
    plan = _Plan(
        scale * _LOG2E,
        tokens,
        min(N, ROWS),
        blocks_a_token(N),
        Q,
        query_blocks is None,
        splits,
        interpret,
    )
    blocks = M * (Q // tokens) * plan.parts
    index = () if query_blocks is None else (query_blocks.tokens.reshape(-1), query_blocks.rows)
    parts, sums = plgpu.kernel(
        partial(mla_kernel, plan=plan),
        out_type=[
            jax.ShapeDtypeStruct((splits, T * N, LATENT), q.dtype),
            jax.ShapeDtypeStruct((splits, 2, blocks * ROWS), jnp.float32),
        ],
        grid=(blocks, splits),
        grid_names=("block", "split"),
        num_threads=3,
        thread_name="warpgroup",
        scratch_types=_scratch(q.dtype, tokens, max(1, TILE // latent_pages.shape[1])),
        compiler_params=plgpu.CompilerParams(approx_math=True, reduction_scratch_bytes=512),
        interpret=interpreter(interpret),
    )(
        jnp.pad(q, ((0, 0), (0, N - given), (0, 0))).reshape(T * N, H),
        latent_pages, page_table, positions, *index,
    )  # fmt: skip
    return parts.reshape(splits, T, N, LATENT), sums


def _scratch(dtype: Any, tokens: int, pages: int) -> list[Any]:
    """Shared memory of one block, in the order of `_Shared`."""
    # rows of 32 16-bit numbers, 8 rows a piece: what the tensor core reads, one tile's weights
    swizzled = (plgpu.TilingTransform((8, 32)), plgpu.SwizzleTransform(64))
    return [
        plgpu.SMEM((2, ROWS, _HALF), dtype, transforms=swizzled),
        plgpu.SMEM((ROWS, ROTARY), dtype, transforms=swizzled),
        plgpu.SMEM((STAGES, 2, TILE, _HALF), dtype, transforms=swizzled),
        plgpu.SMEM((STAGES, TILE, ROTARY), dtype, transforms=swizzled),
        plgpu.SMEM((2, ROWS, TILE), dtype, transforms=swizzled),
        plgpu.SMEM((2, 2, ROWS), jnp.float32),
        plgpu.Barrier(num_arrivals=3 * tokens),
        plgpu.Barrier(num_arrivals=3 * pages, num_barriers=STAGES),
        plgpu.Barrier(num_arrivals=2, num_barriers=STAGES),
        plgpu.Barrier(num_arrivals=2),
        plgpu.Barrier(num_arrivals=2),
    ]


class _Memory(NamedTuple):
    """Arrays in the GPU's memory."""

    q: Any  # [T * N', H]
    latents: Any  # [P, S, H]
    table: Any  # [B, MP]
    positions: Any  # [T]
    tokens: Any  # [M * Q], of each place; None in a decode step
    rows: Any  # [M], of each block of queries; None in a decode step
    parts: Any  # [splits, T * N', V]
    sums: Any  # [splits, 2, blocks * ROWS]


class _Shared(NamedTuple):
    """Arrays in the shared memory of a block, and barriers."""

    q: Any  # [2, ROWS, V / 2]; later the results
    q_rotary: Any
    latents: Any  # [STAGES, 2, TILE, V / 2]
    rotary: Any
    weights: Any  # [2, ROWS, TILE], of each warpgroup's tile
    sums: Any  # [2, 2, ROWS]: peaks (0) and sums of weights (1) of each warpgroup
    q_ready: Any
    ready: Any  # a tile has arrived
    used: Any  # both warpgroups are done with it
    peaks_met: Any  # both have written their peaks
    weights_met: Any  # both have written their weights


class _Work(NamedTuple):
    """What one block does."""

    place: Any  # of its first token
    head: Any  # its first
    row: Any
    oldest: Any  # position of the first token
    newest: Any  # position of the last; -1 for none
    first: Any  # tile
    last: Any  # one past the last


def mla_kernel(*refs: Any, plan: _Plan) -> None:
    """One block: 64 queries of one row, one part of its tiles."""
    given = 4 if plan.decode else 6
    index = (None, None) if plan.decode else refs[4:6]
    memory = _Memory(*refs[:4], *index, *refs[given : given + 2])
    shared = _Shared(*refs[given + 2 :])
    me, block = lax.axis_index("warpgroup"), lax.axis_index("block")
    work = _work(memory, plan, block)
    pl.when(me == 2)(partial(_copy_tiles, memory, shared, work, plan))
    pl.when(me < 2)(partial(_attend_tiles, memory, shared, work, plan, me, block))


def _work(memory: _Memory, plan: _Plan, block: Any) -> _Work:
    """Where the queries of a block are, and which tiles they see."""
    T = memory.positions.shape[0]
    a_group = (plan.places // plan.tokens) * plan.parts
    group, within = lax.div(block, jnp.int32(a_group)), lax.rem(block, jnp.int32(a_group))
    head = lax.rem(within, jnp.int32(plan.parts)) * plan.heads
    place = group * plan.places + lax.div(within, jnp.int32(plan.parts)) * plan.tokens
    tokens = [_token(memory, place + i) for i in range(plan.tokens)]
    live = sum((token < T).astype(jnp.int32) for token in tokens)  # they come first
    position = memory.positions[jnp.minimum(tokens[0], T - 1)]
    oldest = lax.select(live > 0, position, jnp.int32(-1))
    newest = oldest + jnp.maximum(live - 1, 0)
    row = group if plan.decode else memory.rows[group]
    # pairs of live tiles, divided evenly; none for position -1
    pairs = lax.div(newest + 2 * TILE, jnp.int32(2 * TILE))
    each = lax.div(pairs + plan.splits - 1, jnp.int32(plan.splits))
    low = jnp.minimum(lax.axis_index("split") * each, pairs)
    high = jnp.minimum(low + each, pairs)
    return _Work(place, head, row, oldest, newest, 2 * low, 2 * high)


def _token(memory: _Memory, place: Any) -> Any:
    """The token at a place; T for none."""
    return place if memory.tokens is None else memory.tokens[place]


def _copy_tiles(memory: _Memory, shared: _Shared, work: _Work, plan: _Plan) -> None:
    """Warpgroup 2: the queries, then one tile after the other as places become free."""
    plgpu.set_max_registers(_FETCHING, action="decrease")
    S, T = memory.latents.shape[1], memory.positions.shape[0]
    for i in range(plan.tokens):
        source = _rows_of(jnp.minimum(_token(memory, work.place + i), T - 1), work, plan)
        into = pl.ds(i * plan.heads, plan.heads)
        targets = (shared.q.at[0, into], shared.q.at[1, into], shared.q_rotary.at[into])
        _copy_columns(partial(_columns, memory.q, source), targets, shared.q_ready)

    def step(tile: Any, _: Any) -> None:
        slot = lax.rem(tile - work.first, jnp.int32(STAGES))
        pl.when(tile - work.first >= STAGES)(lambda: plgpu.barrier_wait(shared.used.at[slot]))
        for part in range(max(1, TILE // S)):
            key = jnp.minimum(tile * TILE + part * S, work.newest)  # no page but those of the row
            page = memory.latents.at[memory.table[work.row, lax.div(key, jnp.int32(S))]]
            slots = pl.ds(lax.rem(tile * TILE, jnp.int32(S)), TILE) if S > TILE else pl.ds(0, S)
            into = pl.ds(part * S, min(S, TILE))
            targets = (
                shared.latents.at[slot, 0, into],
                shared.latents.at[slot, 1, into],
                shared.rotary.at[slot, into],
            )
            _copy_columns(partial(_columns, page, slots), targets, shared.ready.at[slot])

    lax.fori_loop(work.first, work.last, step, None)

    def drain(tile: Any, _: Any) -> None:  # every phase of a barrier is to be observed
        plgpu.barrier_wait(shared.used.at[lax.rem(tile - work.first, jnp.int32(STAGES))])

    lax.fori_loop(jnp.maximum(work.first, work.last - STAGES), work.last, drain, None)


def _rows_of(token: Any, work: _Work, plan: _Plan) -> Any:
    """Where the block's heads of a token lie in `q`, and in each split of `parts`."""
    return pl.ds(token * (plan.parts * plan.heads) + work.head, plan.heads)


def _columns(source: Any, rows: Any, first: int, count: int) -> Any:
    return source.at[rows, pl.ds(first, count)]


def _copy_columns(source: Callable[[int, int], Any], targets: Any, ready: Any) -> None:
    """Two halves of what is compressed, and what is rotary, to where each lies."""
    for target, first, count in zip(
        targets, (0, _HALF, LATENT), (_HALF, _HALF, ROTARY), strict=True
    ):
        plgpu.copy_gmem_to_smem(source(first, count), target, ready)


def _attend_tiles(
    memory: _Memory, shared: _Shared, work: _Work, plan: _Plan, me: Any, block: Any
) -> None:
    """Warpgroups 0 and 1: softmax and sums over all tiles, and the results to memory."""
    plgpu.set_max_registers(_COMPUTING, action="increase")
    layout = partial(cast, interpret=plan.interpret)
    by_row = plgpu.Layout.WGMMA.reduce(1)
    plgpu.barrier_wait(shared.q_ready)
    start = (
        layout(jnp.zeros((ROWS, _HALF), jnp.float32), plgpu.Layout.WGMMA),
        layout(jnp.full((ROWS,), MASKED, jnp.float32), by_row),
        layout(jnp.zeros((ROWS,), jnp.float32), by_row),
    )
    pairs = lax.div(work.last - work.first, jnp.int32(2))
    step = partial(_pair_step, shared, work, plan, me)
    acc, peak, total = lax.fori_loop(0, pairs, step, start)
    shared.sums[1, me] = total
    plgpu.commit_smem()
    _meet(shared.peaks_met)
    total = jnp.add(*_of_both(shared, 1, plan.interpret))
    acc = acc / lax.broadcast_in_dim(jnp.maximum(total, 1e-30), acc.shape, [0])
    shared.q[me] = acc.astype(shared.q.dtype)  # no product reads the queries any more
    _meet(shared.weights_met)  # both have read both sums
    for who, number in ((0, peak), (1, total)):
        pl.when(me == who)(partial(shared.sums.__setitem__, (0, who), number))
    plgpu.commit_smem()
    split = lax.axis_index("split")
    for i in range(plan.tokens):  # asked again: in registers they would have been in the loop's way
        token = _token(memory, work.place + i)
        results = shared.q.at[me, pl.ds(i * plan.heads, plan.heads)]
        target = memory.parts.at[split, _rows_of(token, work, plan), pl.ds(me * _HALF, _HALF)]
        exists = token < memory.positions.shape[0]
        pl.when(exists)(partial(plgpu.copy_smem_to_gmem, results, target))
    plgpu.copy_smem_to_gmem(
        shared.sums.at[0, me], memory.sums.at[split, me, pl.ds(block * ROWS, ROWS)]
    )
    plgpu.wait_smem_to_gmem(0)


def _pair_step(
    shared: _Shared, work: _Work, plan: _Plan, me: Any, pair: Any, carry: Any
) -> tuple[Any, Any, Any]:
    """Score one tile of a pair, then add half of the columns of both tiles."""
    acc, peak, total = carry
    slot, other = (lax.rem(2 * pair + who, jnp.int32(STAGES)) for who in (me, 1 - me))
    tile = work.first + 2 * pair + me
    plgpu.barrier_wait(shared.ready.at[slot])
    scores = plan.scale * _scores(shared, slot)
    query = work.oldest
    if plan.tokens > 1:
        query += lax.div(row_numbers(scores.shape, plan.interpret), jnp.int32(plan.heads))
    key = tile * TILE + column_numbers(scores.shape, plan.interpret)
    scores = jnp.where(key <= query, scores, MASKED)
    shared.sums[0, me] = jnp.maximum(peak, scores.max(axis=1))
    plgpu.commit_smem()
    _meet(shared.peaks_met)
    new_peak = jnp.maximum(*_of_both(shared, 0, plan.interpret))
    decay = jnp.exp2(peak - new_peak)
    weight = jnp.exp2(scores - lax.broadcast_in_dim(new_peak, scores.shape, [0]))
    shared.weights[me] = weight.astype(shared.weights.dtype)
    # beyond the row's last key lies what others left, even NaN, which 0 x NaN would keep
    written = work.newest - tile * TILE
    pl.when(written < TILE - 1)(partial(_clear, shared, slot, written, plan.interpret))
    plgpu.commit_smem()
    _meet(shared.weights_met)
    acc = acc * lax.broadcast_in_dim(decay, acc.shape, [0])
    pairs = [
        (shared.weights.at[who], shared.latents.at[at, me])
        for who, at in ((me, slot), (1 - me, other))
    ]
    acc = accumulate_all(acc, pairs, plan.interpret)
    plgpu.barrier_arrive(shared.used.at[slot])
    plgpu.barrier_arrive(shared.used.at[other])
    return acc, new_peak, total * decay + weight.sum(axis=1)


def _clear(shared: _Shared, slot: Any, written: Any, interpret: bool) -> None:
    """Values of keys beyond number `written` of a tile become zero, whatever they are."""
    for half in (0, 1):
        for column in range(0, _HALF, 64):
            piece = shared.latents.at[slot, half, :, pl.ds(column, 64)].transpose((1, 0))
            kept = column_numbers(piece.shape, interpret) <= written
            piece[...] = jnp.where(kept, piece[...], jnp.zeros_like(piece[...]))


def _scores(shared: _Shared, slot: Any) -> Any:
    """q.k of the block's queries and a tile's keys [ROWS, TILE]."""
    keys = (shared.latents.at[slot, 0], shared.latents.at[slot, 1], shared.rotary.at[slot])
    queries = (shared.q.at[0], shared.q.at[1], shared.q_rotary)
    return product_sum(
        [(a, b.transpose((1, 0))) for a, b in zip(queries, keys, strict=True)], (ROWS, TILE)
    )


def _meet(barrier: Any) -> None:
    """Wait until the other warpgroup is here as well."""
    plgpu.barrier_arrive(barrier)
    plgpu.barrier_wait(barrier)


def _of_both(shared: _Shared, kind: int, interpret: bool) -> list[Any]:
    """A number a row from each warpgroup: its peak (0) or its sum of weights (1)."""
    return [
        load_as(shared.sums.at[kind, who], plgpu.Layout.WGMMA.reduce(1), interpret)
        for who in (0, 1)
    ]


def _combine(
    parts: Float[Array, "C B N V"], sums: Float32[Array, "C two B N"]
) -> Float32[Array, "B N V"]:
    """The parts of each row as one: each counts as much as its weights summed to.

    Written without reductions, so that XLA makes it one kernel.
    """
    highest = reduce(jnp.maximum, [one[0] for one in sums])
    share = [jnp.exp2(one[0] - highest) * one[1] for one in sums]
    whole = jnp.maximum(reduce(jnp.add, share), 1e-30)
    weighted = [part * (s / whole)[..., None] for part, s in zip(parts, share, strict=True)]
    combined: Array = reduce(jnp.add, weighted)
    return combined
