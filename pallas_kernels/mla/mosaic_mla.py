"""Multi-head latent attention with absorbed weights, for Hopper, in Pallas Mosaic GPU.

    page table ─ TMA ─> a tile of 64 latents [64, 512 + 64], read once, keys and values both

    warpgroup 0:  keys  0-31 ─ q.k^T ─ softmax ─> weights ┐    ┌> out[:, :256]
    warpgroup 1:  keys 32-63 ─ q.k^T ─ softmax ─> weights ┴────┴> out[:, 256:]
    warpgroup 2:  the copies of later tiles

A block is 64 queries, heads x tokens of one row: the rows of the tensor core's product. Its
64 x 512 results fill the registers of two warpgroups, so each scores half of the keys and then sums
half of the columns over all. Fewer than 64 queries leave rows idle, which memory hides:

    heads of a device    16   64   128 (two blocks share their latents in the second-level cache)
    products / byte      30  121   242, and an H200 does 206 in the time that it reads a byte

Shared memory holds the queries (72 KiB) and two tiles (144 KiB): one block on a core. Weights lie
where the tile's rotary keys were, which nobody needs once it is scored.
What it takes is in `sizes.py`, which tokens go together in `groups.py`.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Float32, Int32

from pallas_kernels.attention.query_blocks import QueryBlocks
from pallas_kernels.attention.reference import MASKED
from pallas_kernels.mla.groups import ROWS, Groups, heads_of_block, one_token_each, tokens_of_a_row
from pallas_kernels.mla.sizes import ROTARY, TILE, VALUES
from pallas_kernels.mosaic import (
    accumulate,
    across,
    cast,
    column_numbers,
    interpreter,
    load_as,
    product,
    row_numbers,
)

_STAGES = 2  # tiles in shared memory: one being used, one in flight
_KEYS = TILE // 2  # that a warpgroup scores
_COLUMNS = VALUES // 2  # that it sums
_LOG2E = math.log2(math.e)
# of a thread: two warpgroups that compute, one that fetches; together a core has 512 x 128
_COMPUTING, _FETCHING = 232, 40


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
    groups = one_token_each(positions)
    found = _attend(q, latent_pages, page_table, groups, scale, splits, interpret)
    out: Array = found[0][0] if splits == 1 else _combine(*found).astype(q.dtype)
    return out[:, : q.shape[1]]


def mosaic_mla_ragged(
    q: Float[Array, "T N H"],
    latent_pages: Float[Array, "P S H"],
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " T"],
    *,
    blocks: QueryBlocks,
    scale: float,
    least: int,
    interpret: bool = False,
) -> Float[Array, "T N V"]:
    """`mla_ragged` of the rows that have `least` tokens; other tokens give any number."""
    N = q.shape[1]
    groups = tokens_of_a_row(positions, blocks, ROWS // heads_of_block(N), least)
    (parts,) = _attend(q, latent_pages, page_table, groups, scale, 1, interpret)
    out: Array = parts[0]
    return out[:, :N]


def _attend(
    q: Array, latent_pages: Array, page_table: Array, groups: Groups, scale: float, splits: int,
    interpret: bool,
) -> Any:  # fmt: skip
    """Results of each split [splits, T, N, V], N a multiple of 8: TMA copies 8 rows at a time.

    Of several also log2 of the sums of their weights [splits, T, blocks, 64].
    """
    q = jnp.pad(q, ((0, 0), (0, -q.shape[1] % 8), (0, 0)))
    (T, N, _), heads, S = q.shape, heads_of_block(q.shape[1]), latent_pages.shape[1]
    swizzled = (plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128))
    results = [jax.ShapeDtypeStruct((splits, T, N, VALUES), q.dtype)]
    if splits > 1:
        results.append(jax.ShapeDtypeStruct((splits, T, N // heads, ROWS), jnp.float32))
    return plgpu.kernel(
        partial(mla_kernel, scale=scale * _LOG2E, heads=heads, splits=splits, interpret=interpret),
        out_type=results,
        grid=(splits, groups.oldest.size, N // heads),  # blocks of a token side by side
        grid_names=("split", "group", "part"),
        num_threads=3,
        thread_name="warpgroup",
        scratch_types=_Shared(
            q=plgpu.SMEM((ROWS, VALUES + ROTARY), q.dtype, transforms=swizzled),
            tiles=plgpu.SMEM((_STAGES, TILE, VALUES + ROTARY), q.dtype, transforms=swizzled),
            numbers=plgpu.SMEM((2, 2, ROWS), jnp.float32),
            q_ready=plgpu.Barrier(num_arrivals=groups.members.shape[1] - 1),
            ready=plgpu.Barrier(num_arrivals=max(1, TILE // S), num_barriers=_STAGES),
            used=plgpu.Barrier(num_arrivals=2, num_barriers=_STAGES),
            peaks_met=plgpu.Barrier(num_arrivals=2),
            weights_met=plgpu.Barrier(num_arrivals=2),
        ),
        compiler_params=plgpu.CompilerParams(approx_math=True),
        interpret=interpreter(interpret),
    )(q, latent_pages, page_table, *groups)


class _Shared(NamedTuple):
    """Shared memory of a block."""

    q: Any  # [64, 576]; at the end the results
    tiles: Any  # [stages, 64, 576]
    numbers: Any  # [peak or total, warpgroup, 64]: what the two tell each other
    q_ready: Any
    ready: Any
    used: Any
    peaks_met: Any
    weights_met: Any


class _Task(NamedTuple):
    """What a block is to do."""

    row: Any
    oldest: Any  # position of its first query; the others follow
    newest: Any  # of its last; -1 where it has none
    first: Any  # of its tiles
    last: Any  # one past
    head: Any  # its first


def mla_kernel(
    q_all: Any, latents: Any, table: Any, members: Any, oldest: Any, *rest: Any,
    scale: float, heads: int, splits: int, interpret: bool,
) -> None:  # fmt: skip
    """One block: up to 64 queries of one row, one part of its tiles."""
    results, shared = rest[: 1 + (splits > 1)], _Shared(*rest[1 + (splits > 1) :])
    split, group, part = (lax.axis_index(name) for name in ("split", "group", "part"))
    me = lax.axis_index("warpgroup")
    group = oldest.shape[0] - 1 - group  # later tokens see more keys: they begin first
    each, T = members.shape[1] - 1, q_all.shape[0]

    def token(i: int) -> Any:  # read when it is needed: a loop lies between, with no register free
        return members[group, 1 + i]

    live = sum((token(i) < T).astype(jnp.int32) for i in range(each))
    newest = oldest[group] + jnp.maximum(live - 1, 0)
    task = _Task(
        members[group, 0], oldest[group], newest, *_tiles(newest, split, splits), part * heads
    )  # fmt: skip

    @pl.when(me == 2)
    def _fetch() -> None:
        plgpu.set_max_registers(_FETCHING, action="decrease")
        for i in range(each):
            plgpu.copy_gmem_to_smem(
                q_all.at[jnp.minimum(token(i), T - 1), pl.ds(task.head, heads)],
                shared.q.at[pl.ds(i * heads, heads)],
                shared.q_ready,
            )
        _copy_tiles(latents, table, task, shared)

    @pl.when(me < 2)
    def _compute() -> None:
        plgpu.set_max_registers(_COMPUTING, action="increase")
        plgpu.barrier_wait(shared.q_ready)
        acc, peak, total = _sum_over_tiles(
            me, task, shared, scale=scale, heads=heads, interpret=interpret
        )
        mine = pl.ds(me * _COLUMNS, _COLUMNS)
        # no product reads the queries any more
        shared.q[:, mine] = (acc / across(jnp.maximum(total, 1e-30), acc)).astype(shared.q.dtype)
        plgpu.commit_smem()
        for i in range(each):
            to = token(i)

            @pl.when(to < T)
            def _write(i: int = i, to: Any = to) -> None:
                for head in range(0, heads, 8):  # what lies side by side in shared memory
                    plgpu.copy_smem_to_gmem(
                        shared.q.at[pl.ds(i * heads + head, 8), mine],
                        results[0].at[split, to, pl.ds(task.head + head, 8), mine],
                    )

        if splits > 1:

            @pl.when(me == 0)
            def _write_sums() -> None:
                sums = peak + jnp.log2(jnp.maximum(total, 1e-30))
                results[1][split, token(0), part] = sums

        plgpu.wait_smem_to_gmem(0)


def _tiles(newest: Any, split: Any, splits: int) -> tuple[Any, Any]:
    """First and one past the last tile of a block: the row's live tiles, divided evenly."""
    tiles = lax.div(newest + TILE, jnp.int32(TILE))  # 0 for position -1
    each = lax.div(tiles + splits - 1, jnp.int32(splits))
    low = jnp.minimum(split * each, tiles)
    return low, jnp.minimum(low + each, tiles)


def _copy_tiles(latents: Any, table: Any, task: _Task, shared: _Shared) -> None:
    """Fill the slots, each as soon as both warpgroups are done with what it held."""
    S = latents.shape[1]

    def step(tile: Any, _: Any) -> None:
        slot = lax.rem(tile - task.first, jnp.int32(_STAGES))
        keys = [jnp.minimum(tile * TILE + begin, task.newest) for begin in range(0, TILE, S)]
        pages = [table[task.row, lax.div(key, jnp.int32(S))] for key in keys]  # before the wait
        pl.when(tile - task.first >= _STAGES)(partial(plgpu.barrier_wait, shared.used.at[slot]))
        slots = pl.ds(lax.rem(tile * TILE, jnp.int32(S)), TILE) if S > TILE else slice(None)
        for piece, page in enumerate(pages):
            into = shared.tiles.at[slot, pl.ds(piece * S, min(S, TILE))]
            plgpu.copy_gmem_to_smem(latents.at[page, slots], into, shared.ready.at[slot])

    def drain(tile: Any, _: Any) -> None:  # a barrier wants every turn seen
        plgpu.barrier_wait(shared.used.at[lax.rem(tile - task.first, jnp.int32(_STAGES))])

    lax.fori_loop(task.first, task.last, step, None)
    lax.fori_loop(jnp.maximum(task.first, task.last - _STAGES), task.last, drain, None)


def _sum_over_tiles(
    me: Any, task: _Task, shared: _Shared, *, scale: float, heads: int, interpret: bool
) -> Any:
    """Half of the columns of the weighted sum, the peak of the scores, the sum of the weights."""
    layout, by_row = partial(cast, interpret=interpret), plgpu.Layout.WGMMA.reduce(1)
    step = partial(
        _tile_step, me=me, task=task, shared=shared, scale=scale, heads=heads, interpret=interpret
    )
    acc, peak, total = lax.fori_loop(task.first, task.last, step, (
        layout(jnp.zeros((ROWS, _COLUMNS), jnp.float32), plgpu.Layout.WGMMA),
        layout(jnp.full((ROWS,), MASKED, jnp.float32), by_row),
        layout(jnp.zeros((ROWS,), jnp.float32), by_row),
    ))  # fmt: skip
    shared.numbers[1, me] = total
    _meet(shared.peaks_met)
    return acc, peak, jnp.add(*_both(shared, 1, interpret))


def _tile_step(
    tile: Any, carry: Any, *, me: Any, task: _Task, shared: _Shared, scale: float, heads: int,
    interpret: bool,
) -> Any:  # fmt: skip
    """Online softmax over a tile."""
    acc, peak, total = carry
    slot = lax.rem(tile - task.first, jnp.int32(_STAGES))
    plgpu.barrier_wait(shared.ready.at[slot])
    mine = shared.tiles.at[slot, pl.ds(me * _KEYS, _KEYS)]
    scores = product(shared.q, mine.transpose((1, 0)), (ROWS, _KEYS))
    key, query = tile * TILE + me * _KEYS, task.oldest
    if heads < ROWS:
        query += lax.div(row_numbers(scores.shape, interpret), jnp.int32(heads))
    scores = jnp.where(column_numbers(scores.shape, interpret) + key <= query, scores, -jnp.inf)
    shared.numbers[0, me] = jnp.maximum(peak, scores.max(axis=1) * scale)
    _meet(shared.peaks_met)
    new_peak = jnp.maximum(*_both(shared, 0, interpret))
    decay = jnp.exp2(peak - new_peak)
    weight = jnp.exp2(scores * scale - across(new_peak, scores))
    rotary = mine.at[:, pl.ds(VALUES, ROTARY)]
    rotary.transpose((1, 0))[...] = weight.astype(rotary.dtype)
    stale = key + _KEYS > task.newest + 1
    pl.when(stale)(partial(_clear, mine, task.newest - key, interpret))
    _meet(shared.weights_met)
    acc = accumulate(
        acc * across(decay, acc),
        shared.tiles.at[slot, :, pl.ds(VALUES, ROTARY)].transpose((1, 0)),
        shared.tiles.at[slot, :, pl.ds(me * _COLUMNS, _COLUMNS)],
        interpret,
    )
    plgpu.barrier_arrive(shared.used.at[slot])
    return acc, new_peak, total * decay + weight.sum(axis=1)


def _meet(barrier: Any) -> None:
    """What both warpgroups have written to shared memory, both can read."""
    plgpu.commit_smem()
    plgpu.barrier_arrive(barrier)
    plgpu.barrier_wait(barrier)


def _both(shared: _Shared, kind: int, interpret: bool) -> Any:
    """A number a row from each warpgroup: its peak (0) or its sum of weights (1)."""
    by_row = plgpu.Layout.WGMMA.reduce(1)
    return [load_as(shared.numbers.at[kind, i], by_row, interpret) for i in (0, 1)]


def _clear(tile: Any, last: Any, interpret: bool) -> None:
    """Values of keys beyond number `last`: what others left, even NaN, which 0 x NaN would keep."""
    for column in range(0, VALUES, 64):
        values = tile.at[:, pl.ds(column, 64)].transpose((1, 0))
        kept = column_numbers(values.shape, interpret) <= last
        values[...] = jnp.where(kept, values[...], jnp.zeros_like(values[...]))


def _combine(
    parts: Float[Array, "C B N V"], sums: Float32[Array, "C B blocks rows"]
) -> Float32[Array, "B N V"]:
    """The parts of each row as one: each counts as much as its weights summed to.

    XLA makes two launches of it for up to 8 parts, and four of more.
    """
    logs = sums[..., : heads_of_block(parts.shape[2])].reshape(parts.shape[:3])
    highest = logs.max(0)
    whole = highest + jnp.log2(jnp.exp2(logs - highest).sum(0))
    return (parts * jnp.exp2(logs - whole)[..., None]).sum(0)
