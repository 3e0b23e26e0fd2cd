"""Attention of one query a row over its pages, for Hopper, in Pallas Mosaic GPU.

    page table ─ TMA ─> K tile [T, H] ─ wgmma with q ─> scores^T [T, R] ─ softmax ─> P^T [T, R]
                 TMA ─> V tile [T, H] ─────────────────────────── wgmma ─> out^T [H, R]

Operands are swapped: keys and not queries are the rows of the tensor core's product, of which it
does at least 64 at a time; the R = 8 to 32 columns are query heads of one key/value head. A row's
pages are divided among `splits` blocks, each of which leaves its part for `_combine`. With a latent
cache (MLA) a tile of keys is the tile of values too.
What it takes is in `limits.py`.
"""

import math
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Float32, Int32

from pallas_kernels.attention.reference import MASKED
from pallas_kernels.dispatch import traced_device
from pallas_kernels.mosaic import (
    accumulate,
    cast,
    interpreter,
    load,
    product,
    row_numbers,
    spread,
    zero_rows_after,
)
from pallas_kernels.tuning import tuned

TILE = 64  # keys of one product
SPLITS = (1, 2, 4, 8, 16)
_COLUMNS = (8, 16, 32)  # query heads of a block
_MOST_SUMS = 16 * 512  # of a block
_BLOCKS_PER_CORE = 2
_SHARED_BYTES = 100 * 1024  # of K and V tiles in flight: two blocks fit on a core
_LOG2E = math.log2(math.e)


def decode_splits(kernel: str, blocks: int, keys: int, H: int, S: int) -> int:
    """Into how many blocks a row is divided on the GPU traced for: as measured, or by rule."""
    gpu = traced_device()
    facts = {"blocks": blocks, "keys": keys, "H": H, "S": S}
    found = tuned(kernel, facts, gpu.kind)
    return found["splits"] if found else choose_splits(blocks, keys, gpu.num_cores)


def choose_splits(blocks: int, keys: int, num_cores: int) -> int:
    """The rule: enough to fill the GPU, each with a tile to do."""
    tiles = -(-keys // TILE)
    fitting = [n for n in SPLITS if n <= tiles]
    filling = [n for n in fitting if blocks * n >= _BLOCKS_PER_CORE * num_cores]
    return min(filling, default=fitting[-1])


def columns(G: int, V: int) -> int:
    """Query heads of a block; the sums of one with 16 and V = 512 take 64 registers a thread."""
    fitting = [n for n in _COLUMNS if n * V <= _MOST_SUMS]
    return next((n for n in fitting if n >= G), fitting[-1])


def mosaic_decode(
    q: Float[Array, "B N H"],
    k_pages: Float[Array, "P K S H"],
    v_pages: Float[Array, "P K S H"] | None,
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " B"],
    *,
    scale: float,
    splits: int,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Float[Array, " N"] | None = None,
    value_dim: int | None = None,
    interpret: bool = False,
) -> Float[Array, "B N V"]:
    """`paged_decode` in the limits of `check_attention`. A row at position -1 gives zeros.

    Without `v_pages`, values are the first `value_dim` entries of the keys, and read with them.
    `interpret` runs it without a GPU, watching for races.
    """
    (B, N, H), (K, S) = q.shape, k_pages.shape[1:3]
    G, V = N // K, value_dim or H
    R = columns(G, V)
    heads, results = K * -(-G // R), min(G, R)
    # TMA adds the zero rows that make G up to R, but reads no part of a piece of 8 rows
    odd = -G % 8 if G > 8 else 0
    queries = jnp.pad(q.reshape(B, K, G, H), ((0, 0), (0, 0), (0, odd), (0, 0)))
    whole = [jax.ShapeDtypeStruct((B, heads, results, V), q.dtype)]
    parts = [
        jax.ShapeDtypeStruct((splits, B, heads, V, R), jnp.float32),
        jax.ShapeDtypeStruct((splits, B, heads, 2, R), jnp.float32),
    ]
    found = plgpu.kernel(
        partial(
            paged_decode_kernel, scale=scale * _LOG2E, window=window,
            softcap=softcap and softcap * _LOG2E, splits=splits,
            latent=v_pages is None, has_sinks=sinks is not None, interpret=interpret,
        ),
        out_type=whole if splits == 1 else parts,
        grid=(B, heads, splits),
        grid_names=("row", "head", "split"),
        scratch_types=_scratch(R, H, V, S, q.dtype, v_pages is None, splits),
        compiler_params=plgpu.CompilerParams(approx_math=True, reduction_scratch_bytes=4096),
        interpret=interpreter(interpret),
    )(
        queries,
        *(pages for pages in (k_pages, v_pages) if pages is not None),
        page_table, positions,
        *(() if sinks is None else (_by_head(sinks, K, R),)),
    )  # fmt: skip
    out = found[0] if splits == 1 else _combine(found[0], found[1], results).astype(q.dtype)
    return jnp.reshape(out.reshape(B, K, -1, V)[:, :, :G], (B, N, V))


def _scratch(R: int, H: int, V: int, S: int, dtype: Any, latent: bool, splits: int) -> list[Any]:
    """Shared memory of one block: queries, tiles in flight, weights, result, barriers."""
    # rows of 64 16-bit numbers, 8 rows a piece: what the tensor core reads
    swizzled = (plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128))
    kinds = 1 if latent else 2  # of tiles
    stages = max(2, min(6, _SHARED_BYTES // (kinds * TILE * H * 2)))
    ready = plgpu.Barrier(num_arrivals=max(1, TILE // S), num_barriers=stages)
    return [
        plgpu.SMEM((R, H), dtype, transforms=swizzled),
        *[plgpu.SMEM((stages, TILE, H), dtype, transforms=swizzled)] * kinds,
        plgpu.SMEM((R, TILE), dtype, transforms=swizzled),
        *[plgpu.SMEM((R, V), dtype)] * (splits == 1),  # in no pieces: only some rows go out
        plgpu.Barrier(),
        *[ready] * kinds,
    ]


def paged_decode_kernel(
    *refs: Any, scale: Any, window: Any, softcap: Any, splits: int, latent: bool,
    has_sinks: bool, interpret: bool,
) -> None:  # fmt: skip
    """One block: one row, heads of one key/value head, one part of its tiles."""
    given = iter(refs)

    def take(count: int) -> list[Any]:
        return [next(given) for _ in range(count)]

    # in the GPU's memory
    (q_all,), sources, (table, positions) = take(1), take(2 - latent), take(2)
    sinks, results = take(has_sinks), take(1 if splits == 1 else 2)
    # of the block
    (q,), tiles, (weights,), out, (q_ready,) = (
        take(1), take(2 - latent), take(1), take(splits == 1), take(1),
    )  # fmt: skip
    ready = take(2 - latent)
    row, head, split = (lax.axis_index(name) for name in ("row", "head", "split"))
    R, S, stages = q.shape[0], sources[0].shape[2], tiles[0].shape[0]
    V = results[0].shape[3]
    blocks = jnp.int32(-(-q_all.shape[2] // R))  # of a key/value head
    kv_head, first_query = lax.div(head, blocks), R * lax.rem(head, blocks)
    layout = partial(cast, interpret=interpret)
    by_column = plgpu.Layout.WGMMA.reduce(0)
    position = positions[row]
    first, last = _tiles(position, window, split, splits)

    def fetch(tile: Any, slot: Any) -> Any:
        for part in range(max(1, TILE // S)):
            key = jnp.minimum(tile * TILE + part * S, position)  # no page but those of the row
            page = table[row, lax.div(key, jnp.int32(S))]
            slots = pl.ds(lax.rem(tile * TILE, jnp.int32(S)), TILE) if S > TILE else slice(None)
            rows = pl.ds(part * S, min(S, TILE))
            for source, target, done in zip(sources, tiles, ready, strict=True):
                plgpu.copy_gmem_to_smem(
                    source.at[page, kv_head, slots], target.at[slot, rows], done.at[slot]
                )

    plgpu.copy_gmem_to_smem(q_all.at[row, kv_head, pl.ds(first_query, R)], q, q_ready)
    for stage in range(stages):
        pl.when(first + stage < last)(partial(fetch, first + stage, stage))
    plgpu.barrier_wait(q_ready)

    def tile_step(tile: Any, carry: Any) -> Any:
        acc, peak, total = carry
        slot = lax.rem(tile - first, jnp.int32(stages))
        plgpu.barrier_wait(ready[0].at[slot])
        scores = (
            product(tiles[0].at[slot], q.transpose((1, 0)), (TILE, R)) * scale
        )  # [T, R], in base 2
        if softcap is not None:
            scores = softcap - 2 * softcap / (1 + jnp.exp2(scores * (2 * _LOG2E / softcap)))
        key = tile * TILE + row_numbers(scores.shape, interpret)
        seen = key <= position
        if window is not None:
            seen &= key > position - window
        scores = jnp.where(seen, scores, MASKED)
        new_peak = jnp.maximum(peak, scores.max(axis=0))
        decay = jnp.exp2(peak - new_peak)
        weight = jnp.exp2(scores - spread(new_peak, scores))
        weights.transpose((1, 0))[...] = weight.astype(weights.dtype)
        if not latent:
            plgpu.barrier_wait(ready[1].at[slot])
        values = tiles[-1].at[slot, :, pl.ds(0, V)]
        # beyond the row's last key lies what others left, even NaN, which 0 x NaN would keep
        written = position - tile * TILE
        pl.when(written < TILE - 1)(partial(zero_rows_after, values, written, interpret))
        plgpu.commit_smem()
        turned = values.transpose((1, 0)), weights.transpose((1, 0))
        acc = accumulate(acc * spread(decay, acc), *turned, interpret)
        pl.when(tile + stages < last)(partial(fetch, tile + stages, slot))
        return acc, new_peak, total * decay + weight.sum(axis=0)

    peak, total, one = (layout(jnp.full((R,), x), by_column) for x in (MASKED, 0.0, 1.0))
    if sinks:  # as a key that the first part has seen, whose value is nothing
        theirs = layout(load(sinks[0].at[head]), by_column)
        peak, total = lax.cond(split == 0, lambda: (theirs, one), lambda: (peak, total))
    acc = layout(jnp.zeros((V, R), jnp.float32), plgpu.Layout.WGMMA)
    acc, peak, total = lax.fori_loop(first, last, tile_step, (acc, peak, total))
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


def _by_head(sinks: Float[Array, " N"], K: int, R: int) -> Float32[Array, "heads R"]:
    """As the kernel reads them: in base 2, a row for the heads of a block."""
    grouped = sinks.astype(jnp.float32).reshape(K, -1) * _LOG2E
    return jnp.pad(grouped, ((0, 0), (0, -grouped.shape[1] % R))).reshape(-1, R)


def _tiles(position: Any, window: Any, split: Any, splits: Any) -> Any:
    """First and one past the last tile of a block: the row's live tiles, divided evenly."""
    last = lax.div(position + TILE, jnp.int32(TILE))  # 0 for position -1
    first = jnp.int32(0)
    if window is not None:
        first = lax.div(jnp.maximum(position - window + 1, 0), jnp.int32(TILE))
    each = lax.div(last - first + splits - 1, jnp.int32(splits))
    low = first + split * each
    return low, jnp.minimum(low + each, last)


def _combine(
    parts: Float32[Array, "C B K V R"], peaks: Float32[Array, "C B K 2 R"], G: int
) -> Float32[Array, "B K G V"]:
    """The parts of each row as one: each counts as much as its weights summed to.

    Written without reductions, so that XLA makes it one kernel.
    """
    peak, total = ([peak[:, :, i, :G, None] for peak in peaks] for i in (0, 1))
    highest = reduce(jnp.maximum, peak)
    share = [jnp.exp2(p - highest) * t for p, t in zip(peak, total, strict=True)]
    whole = jnp.maximum(reduce(jnp.add, share), 1e-30)
    turned = [part[..., :G].swapaxes(-1, -2) for part in parts]
    combined: Array = reduce(
        jnp.add, [part * (s / whole) for part, s in zip(turned, share, strict=True)]
    )
    return combined
