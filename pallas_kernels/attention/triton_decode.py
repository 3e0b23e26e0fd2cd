"""Attention of one query a row over its pages, for Ampere and Ada, in Pallas Triton.

    block = one row, up to R query heads of one key/value head, one of `splits` parts of its tiles

The tensor core multiplies 16 rows at a time, so a group of fewer heads is filled up with zeros: the
step is bound by memory, where that costs nothing. Two tiles of 8 KB of keys and as many values are
in flight; several blocks fit on a core. Results go where they belong; parts are combined by XLA.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Float32, Int32, Num

from pallas_kernels.attention.splits import choose_splits, combine_parts
from pallas_kernels.attention.triton_tiles import (
    STAGES,
    Pages,
    add_tile,
    first_tile,
    linear_bias,
    no_sums,
    operand_dtype,
)
from pallas_kernels.dispatch import traced_device
from pallas_kernels.triton import load, load_rows, parts, power_of_two, store_rows
from pallas_kernels.tuning import tuned

_MOST_SUMS = 32 * 128  # of a block


def rows(G: int, H: int) -> int:
    """Query heads of a block."""
    return max(16, min(power_of_two(G), power_of_two(_MOST_SUMS // H)))


def tile_keys(H: int) -> int:
    """Keys of a tile: 8 KB of them in 16 bits, and no fewer than the tensor core's 16."""
    return 64 if H <= 64 else 32 if H <= 128 else 16


def triton_splits(q: tuple[int, ...], K: int, S: int, keys: int) -> int:
    """Into how many blocks a row is divided on the GPU traced for: as measured, or by rule."""
    (B, N, H), gpu = q, traced_device()
    blocks = B * K * -(-(N // K) // rows(N // K, H))
    found = tuned("paged_decode", {"blocks": blocks, "keys": keys, "H": H, "S": S}, gpu.kind)
    return found["splits"] if found else choose_splits(blocks, keys, tile_keys(H), gpu.num_cores)


def triton_decode(
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
    """`paged_decode` in the limits of `check_attention`. A row at position -1 gives zeros."""
    (B, N, H), K = q.shape, k_pages.shape[1]
    R = rows(N // K, H)
    whole = jax.ShapeDtypeStruct((B, N, H), q.dtype)
    peaks = jax.ShapeDtypeStruct((splits, B, N), jnp.float32)
    split = [jax.ShapeDtypeStruct((splits, B, N, H), jnp.float32), peaks, peaks]
    extras = [x for x in (k_scales, v_scales, sinks, slopes) if x is not None]
    found = pl.pallas_call(
        partial(
            paged_decode_kernel, R=R, scale=scale, window=window, softcap=softcap, splits=splits,
            scaled=k_scales is not None, has_sinks=sinks is not None, has_slopes=slopes is not None,
        ),
        out_shape=[whole] if splits == 1 else split,
        grid=(K * -(-(N // K) // R), B, splits),
        compiler_params=plt.CompilerParams(num_warps=4, num_stages=STAGES),
        interpret=interpret,
    )(q, k_pages, v_pages, page_table, positions, *extras)  # fmt: skip
    return found[0] if splits == 1 else combine_parts(*found).astype(q.dtype)


def paged_decode_kernel(
    # in the GPU's memory
    q: Any, k: Any, v: Any, table: Any, positions: Any, *rest: Any,
    R: int, scale: float, window: int | None, softcap: float | None, splits: int, scaled: bool,
    has_sinks: bool, has_slopes: bool,
) -> None:  # fmt: skip
    """One block: one row, heads of one key/value head, one part of its tiles."""
    count = 2 * scaled + has_sinks
    scales, sinks = rest[: 2 * scaled], rest[2 * scaled : count]
    slopes, results = rest[count : count + has_slopes], rest[count + has_slopes :]
    block, row, split = (pl.program_id(axis) for axis in range(3))
    H = q.shape[2]
    G = q.shape[1] // k.shape[1]
    blocks, tile = -(-G // R), tile_keys(H)
    kv_head = lax.div(block, jnp.int32(blocks))
    of_group = lax.rem(block, jnp.int32(blocks)) * R + jnp.arange(R)
    mine = of_group < G
    head = kv_head * G + of_group

    position = positions[row]
    first, last = _tiles(position, window, tile, split, splits)
    pages, operand = Pages(k, v, scales, table, row, kv_head), operand_dtype(q.dtype, k.dtype)
    queries = [load_rows(q.at[row, head[:, None], part], mine).astype(operand) for part in parts(H)]

    def step(index: Any, sums: Any) -> Any:
        key = index * tile + jnp.arange(tile)
        written = key <= position  # beyond lies what others left
        seen = written if window is None else written & (key > position - window)
        return add_tile(
            sums, queries, pages, key, written=written, seen=seen[None], scale=scale,
            softcap=softcap, bias=linear_bias(slopes, head, mine, key, position),
        )  # fmt: skip

    sums = no_sums(R, H)
    if sinks:  # of the first part only
        with_sinks = no_sums(R, H, load(sinks[0].at[head], mine).astype(jnp.float32))
        is_first = split == 0
        sums = sums._replace(
            peak=jnp.where(is_first, with_sinks.peak, sums.peak),
            total=jnp.where(is_first, with_sinks.total, sums.total),
        )
    sums = lax.fori_loop(first, last, step, sums)
    place = (row,) if splits == 1 else (split, row)
    for part, result in zip(parts(H), sums.result(), strict=True):
        target = results[0].at[*place, head[:, None], part]
        store_rows(target, result, mine)
    if splits > 1:
        for target, value in zip(results[1:], (sums.peak, sums.total), strict=True):
            plt.store(target.at[*place, head], value, mask=mine)


def _tiles(position: Any, window: int | None, tile: int, split: Any, splits: int) -> Any:
    """First and one past the last tile of a block: the row's live tiles, divided evenly."""
    last = lax.div(position + tile, jnp.int32(tile))  # 0 for position -1
    first = first_tile(position, window, tile)
    each = lax.div(last - first + splits - 1, jnp.int32(splits))
    low = first + split * each
    return low, jnp.minimum(low + each, last)
