"""Attention of one query a row over its pages, for Hopper, in Pallas Mosaic GPU.

    page table ─ TMA ─> K tile [T, H] ─ wgmma with q ─> scores^T [T, R] ─ softmax ─> P^T [T, R]
                 TMA ─> V tile [T, H] ─────────────────────────── wgmma ─> out^T [H, R]

Operands are swapped: keys and not queries are the rows of the tensor core's product, of which it
does at least 64 at a time; the R = 8 to 32 columns are query heads of one key/value head. A row's
pages are divided among `splits` blocks, each of which leaves its part for `_combine`. Keys and
values of 8 bits are multiplied as they are: the scales of keys multiply scores, those of values
the weights. Columns may be tokens too: `mosaic_verify.py`.
What it takes is in `limits.py`, how tiles get there in `mosaic_tiles.py`.
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

from pallas_kernels.attention.mosaic_tiles import (
    TILE,
    Stream,
    fetch,
    keys_operand,
    operand_dtype,
    swizzled,
    values_operand,
)
from pallas_kernels.attention.reference import MASKED
from pallas_kernels.attention.splits import choose_splits, combine_parts
from pallas_kernels.cache.quantise import is_quantised
from pallas_kernels.dispatch import traced_device
from pallas_kernels.mosaic import (
    accumulate,
    across,
    cast,
    interpreter,
    load,
    product,
    register_product,
    row_numbers,
    spread,
)
from pallas_kernels.tuning import tuned

_COLUMNS = (8, 16, 32)  # query heads of a block
DOUBLED = 256  # head dim up to which two tiles of keys and two of values fit
_SHARED_BYTES = 112 * 1024  # of a block: two fit on a core
_REDUCTION_BYTES = 4096
_LOG2E = math.log2(math.e)


def decode_splits(kernel: str, blocks: int, keys: int, H: int, S: int) -> int:
    """Into how many blocks a row is divided on the GPU traced for: as measured, or by rule."""
    gpu = traced_device()
    facts = {"blocks": blocks, "keys": keys, "H": H, "S": S}
    found = tuned(kernel, facts, gpu.kind)
    return found["splits"] if found else choose_splits(blocks, keys, TILE, gpu.num_cores)


def columns(G: int, H: int) -> int:
    """Query heads of a block; of the widest heads few, beside three tiles of which is no room."""
    return _COLUMNS[0] if H > DOUBLED else next((n for n in _COLUMNS if n >= G), _COLUMNS[-1])


def mosaic_decode(
    q: Float[Array, "B N H"],
    k_pages: Num[Array, "P K S H"],
    v_pages: Num[Array, "P K S H"],
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " B"],
    *,
    scale: float,
    splits: int,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Float[Array, " N"] | None = None,
    slopes: Float[Array, " N"] | None = None,
    k_scales: Float32[Array, "P Ks S"] | None = None,
    v_scales: Float32[Array, "P Ks S"] | None = None,
    interpret: bool = False,
) -> Float[Array, "B N H"]:
    """`paged_decode` in the limits of `check_attention`. A row at position -1 gives zeros.

    `interpret` runs it without a GPU, watching for races.
    """
    (B, N, H), K = q.shape, k_pages.shape[1]
    out = attend_columns(
        q.reshape(B, K, N // K, H), k_pages, v_pages, page_table, positions, drafts=None,
        scale=scale, splits=splits, window=window, softcap=softcap,
        sinks=None if sinks is None else sinks.reshape(K, -1),
        slopes=None if slopes is None else slopes.reshape(K, -1),
        k_scales=k_scales, v_scales=v_scales, interpret=interpret,
    )  # fmt: skip
    return jnp.reshape(out, (B, N, -1))


class Drafts(NamedTuple):
    """Of drafted tokens: how many they are, and what each column sees."""

    counts: Int32[Array, " B"]
    # drafts, as bits; and, with a window, keys later than this, counted from the first draft
    seen: Int32[Array, "B 2 C"]


def attend_columns(
    q: Float[Array, "B K C H"],
    k_pages: Num[Array, "P K S H"],
    v_pages: Num[Array, "P K S H"],
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " B"],
    *,
    drafts: Drafts | None,
    scale: float,
    splits: int,
    window: int | None,
    softcap: float | None = None,
    sinks: Float[Array, "K C"] | None = None,
    slopes: Float[Array, "K C"] | None = None,
    k_scales: Float32[Array, "P Ks S"] | None = None,
    v_scales: Float32[Array, "P Ks S"] | None = None,
    interpret: bool = False,
) -> Float[Array, "B K C H"]:
    """C queries of each row and key/value head: all at `positions`, or drafts from there on."""
    (B, K, C, H), S = q.shape, k_pages.shape[2]
    R = columns(C, H)
    groups, results = -(-C // R), min(C, R)
    heads = K * groups
    operand = operand_dtype(q.dtype, k_pages.dtype)
    sources = [x for x in (k_pages, v_pages, k_scales, v_scales) if x is not None]
    # TMA adds the zero rows that make C up to R, but reads no part of a piece of 8 rows
    odd = -C % 8 if C > 8 else 0
    queries = jnp.pad(q.astype(operand), ((0, 0), (0, 0), (0, odd), (0, 0)))
    by_block = [
        _blocks(x.astype(jnp.float32) * _LOG2E, R) for x in (sinks, slopes) if x is not None
    ]
    if drafts is not None:
        seen = _blocks(drafts.seen.reshape(2 * B, C), R)
        by_block += [drafts.counts, seen.reshape(B, 2, groups, R)]
    whole = [jax.ShapeDtypeStruct((B, heads, results, H), q.dtype)]
    parts = [
        jax.ShapeDtypeStruct((splits, B, heads, H, R), jnp.float32),
        jax.ShapeDtypeStruct((splits, B, heads, 2, R), jnp.float32),
    ]
    found = plgpu.kernel(
        partial(
            paged_decode_kernel, scale=scale * _LOG2E, window=window,
            softcap=softcap and softcap * _LOG2E, splits=splits,
            drafted=drafts is not None, scaled=k_scales is not None,
            has_sinks=sinks is not None, has_slopes=slopes is not None, interpret=interpret,
        ),
        out_type=whole if splits == 1 else parts,
        grid=(B, heads, splits),
        grid_names=("row", "head", "split"),
        scratch_types=_scratch(R, H, S, q.dtype, k_pages.dtype, splits),
        compiler_params=plgpu.CompilerParams(
            approx_math=True, reduction_scratch_bytes=_REDUCTION_BYTES
        ),
        interpret=interpreter(interpret),
    )(
        queries, *sources, page_table, positions, *by_block,
    )  # fmt: skip
    out = found[0] if splits == 1 else _combine(found[0], found[1], results).astype(q.dtype)
    cut: Array = out.reshape(B, K, -1, H)[:, :, :C]
    return cut


def _scratch(R: int, H: int, S: int, dtype: Any, pages: Any, splits: int) -> list[Any]:
    """Shared memory of one block: queries, tiles in flight, weights, result, barriers."""
    operand, scaled = operand_dtype(dtype, pages), is_quantised(pages)
    wide = [plgpu.SMEM((TILE, H), operand, transforms=swizzled(H, operand))] * scaled
    others = R * (H + TILE + H * (splits == 1)) + scaled * TILE * H  # in 16 bits
    room = _SHARED_BYTES - _REDUCTION_BYTES - 2 * others
    stages = max(2, min(6, room // (2 * TILE * (H * jnp.dtype(pages).itemsize + 4 * scaled))))
    depths = stages, stages if H <= DOUBLED else 1  # a block of the widest has a core for itself
    parts = max(1, TILE // S)
    arrivals = (3 if scaled else 1) * parts, parts
    return [
        plgpu.SMEM((R, H), operand, transforms=swizzled(H, operand)),
        *[plgpu.SMEM((depth, TILE, H), pages, transforms=swizzled(H, pages)) for depth in depths],
        *[plgpu.SMEM((stages, TILE), jnp.float32)] * (2 * scaled),
        *wide,
        plgpu.SMEM((R, TILE), operand, transforms=swizzled(TILE, operand)),
        *[plgpu.SMEM((R, H), dtype)] * (splits == 1),  # in no pieces: only some rows go out
        plgpu.Barrier(),
        *[
            plgpu.Barrier(num_arrivals=n, num_barriers=depth)
            for n, depth in zip(arrivals, depths, strict=True)
        ],
    ]


def paged_decode_kernel(
    *refs: Any, scale: Any, window: Any, softcap: Any, splits: int, drafted: bool,
    scaled: bool, has_sinks: bool, has_slopes: bool, interpret: bool,
) -> None:  # fmt: skip
    """One block: one row, heads of one key/value head, one part of its tiles."""
    given = iter(refs)

    def take(count: int) -> list[Any]:
        return [next(given) for _ in range(count)]

    # in the GPU's memory: pages, then scales
    (q_all,), sources, (table, positions) = take(1), take(2 + 2 * scaled), take(2)
    sinks, slopes = take(has_sinks), take(has_slopes)
    drafts, results = take(2 * drafted), take(1 if splits == 1 else 2)
    # of the block
    (q,), tiles, wide, (weights,) = take(1), take(2 + 2 * scaled), take(scaled), take(1)
    out, (q_ready,), ready = take(splits == 1), take(1), take(2)
    streams = list(map(Stream, sources, tiles, [*ready, *[ready[0]] * (2 * scaled)]))
    row, head, split = (lax.axis_index(name) for name in ("row", "head", "split"))
    (R, H), copied = q.shape, _copied(streams)
    groups = jnp.int32(-(-q_all.shape[2] // R))  # blocks of a key/value head
    kv_head, group = lax.div(head, groups), lax.rem(head, groups)
    layout = partial(cast, interpret=interpret)
    by_column = plgpu.Layout.WGMMA.reduce(0)
    position = positions[row]
    earliest = position  # of the queries
    if drafted:
        position = jnp.where(drafts[0][row] > 0, earliest + drafts[0][row] - 1, -1)
    first, last = _tiles(position, earliest, window, split, splits)

    def get(kinds: Any, tile: Any, slot: Any) -> None:
        pl.when(tile < last)(partial(fetch, kinds, table, row, kv_head, position, tile, slot))

    plgpu.copy_gmem_to_smem(q_all.at[row, kv_head, pl.ds(group * R, R)], q, q_ready)
    for kinds, depth in copied:
        for stage in range(depth):
            get(kinds, first + stage, stage)
    plgpu.barrier_wait(q_ready)

    def tile_step(tile: Any, carry: Any) -> Any:
        acc, peak, totals = carry  # those of each place in a tile: one reduction, at the end
        slots = [lax.rem(tile - first, jnp.int32(depth)) for _, depth in copied]
        slot, value_slot, newest = slots[0], slots[-1], position - tile * TILE
        plgpu.barrier_wait(ready[0].at[slot])
        keys = keys_operand(tiles[0].at[slot], q.dtype)
        multiply = partial(register_product, interpret=interpret) if scaled else product
        scores = multiply(keys, q.transpose((1, 0)), (TILE, R)) * scale  # [T, R], in base 2
        if scaled:
            k_scale, v_scale = _scales(tiles[2:], slot, interpret)
            scores *= across(k_scale, scores)
        if softcap is not None:
            scores = softcap - 2 * softcap / (1 + jnp.exp2(scores * (2 * _LOG2E / softcap)))
        key = row_numbers(scores.shape, interpret)
        if slopes:
            slope = layout(load(slopes[0].at[head]), by_column)
            scores += spread(slope, scores) * (key - newest).astype(jnp.float32)
        if scaled:  # a weight times its scale is at most 1: float16 holds what matters of it
            scores += across(jnp.log2(v_scale), scores)
        seen = key <= newest
        if drafted:
            since = key + (tile * TILE - earliest)
            seen &= _sees(drafts, row, group, since, window, interpret)
        elif window is not None:
            seen &= key > newest - window
        scores = jnp.where(seen, scores, MASKED)
        new_peak = jnp.maximum(peak, scores.max(axis=0))
        decay = jnp.exp2(peak - new_peak)
        weight = jnp.exp2(scores - spread(new_peak, scores))
        weights.transpose((1, 0))[...] = weight.astype(weights.dtype)
        plgpu.barrier_wait(ready[1].at[value_slot])
        values = values_operand(tiles[1].at[value_slot], wide, newest, interpret)
        turned = values.transpose((1, 0)), weights.transpose((1, 0))
        acc = accumulate(acc * spread(decay, acc), *turned, interpret)
        for (kinds, depth), free in zip(copied, slots, strict=True):
            get(kinds, tile + depth, free)
        if scaled:
            weight /= across(v_scale, weight)
        return acc, new_peak, totals * spread(decay, totals) + weight

    acc, totals = (
        layout(jnp.zeros((rows, R), jnp.float32), plgpu.Layout.WGMMA) for rows in (H, TILE)
    )
    peak = layout(jnp.full((R,), MASKED), by_column)
    acc, peak, totals = lax.fori_loop(first, last, tile_step, (acc, peak, totals))
    total = totals.sum(axis=0)
    if sinks:
        theirs = layout(load(sinks[0].at[head]), by_column)
        acc, peak, total = _with_sinks(theirs, split, acc, peak, total)
    acc = acc / spread(jnp.maximum(total, 1e-30), acc)
    if splits > 1:
        parts, peaks = results
        parts[split, row, head] = acc
        peaks[split, row, head, 0] = peak
        peaks[split, row, head, 1] = total
        return
    (whole,), (result,) = results, out
    result.transpose((1, 0))[...] = acc.astype(result.dtype)
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(result.at[pl.ds(0, whole.shape[2])], whole.at[row, head])
    plgpu.wait_smem_to_gmem(0)


def _copied(streams: list[Stream]) -> list[tuple[list[Stream], int]]:
    """What is copied together, and how many tiles of it there are."""
    keys, values = (stream.tiles.shape[0] for stream in streams[:2])
    return [(streams, keys)] if keys == values else [(streams[:1], keys), (streams[1:], values)]


def _with_sinks(theirs: Any, split: Any, acc: Any, peak: Any, total: Any) -> tuple[Any, Any, Any]:
    """A key that the first part has seen, whose value is nothing."""
    here = jnp.where(split == 0, 1.0, 0.0)
    theirs = theirs * here + MASKED * (1 - here)
    joined = jnp.maximum(peak, theirs)
    decay = jnp.exp2(peak - joined)
    return acc * spread(decay, acc), joined, total * decay + jnp.exp2(theirs - joined)


def _scales(tiles: list[Any], slot: Any, interpret: bool) -> list[Any]:
    """Of the keys and values of a tile; those of values are 1 beyond the row, where NaN may be."""
    by_row = plgpu.Layout.WGMMA.reduce(1)
    keys, values = (cast(load(scales.at[slot]), by_row, interpret) for scales in tiles)
    return [keys, jnp.where(values > 0, values, jnp.ones_like(values))]


def _blocks(columns: Num[Array, "A C"], R: int) -> Num[Array, "blocks R"]:
    """Numbers of columns as the kernel reads them, a row for each block."""
    return jnp.pad(columns, ((0, 0), (0, -columns.shape[1] % R))).reshape(-1, R)


def _sees(drafts: list[Any], row: Any, block: Any, key: Any, window: Any, interpret: bool) -> Any:
    """Which drafts see which keys; `key` is counted from the row's first draft."""
    by_column = plgpu.Layout.WGMMA.reduce(0)
    bits, after = (
        spread(cast(load(drafts[1].at[row, i, block]), by_column, interpret), key) for i in (0, 1)
    )
    bit = lax.shift_right_logical(bits, jnp.minimum(jnp.maximum(key, 0), 31)) & 1
    context = key < 0 if window is None else (key < 0) & (key > after)
    return context | ((key >= 0) & (bit == 1))


def _tiles(position: Any, earliest: Any, window: Any, split: Any, splits: Any) -> Any:
    """First and one past the last tile of a block: the row's live tiles, divided evenly."""
    last = lax.div(position + TILE, jnp.int32(TILE))  # 0 for position -1
    first = jnp.int32(0)
    if window is not None:
        first = lax.div(jnp.maximum(earliest - window + 1, 0), jnp.int32(TILE))
    each = lax.div(last - first + splits - 1, jnp.int32(splits))
    low = first + split * each
    return low, jnp.minimum(low + each, last)


def _combine(
    parts: Float32[Array, "C B K H R"], peaks: Float32[Array, "C B K 2 R"], G: int
) -> Float32[Array, "B K G H"]:
    """The parts of each row as one, of the first G columns."""
    turned = parts[..., :G].swapaxes(-1, -2)
    return combine_parts(turned, *(peaks[:, :, :, i, :G] for i in (0, 1)))
