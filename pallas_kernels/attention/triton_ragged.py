"""Causal attention of packed chunks over their pages, for Ampere and Ada, in Pallas Triton.

    rows a, b, c with 5, 1 and 2 tokens          blocks of 4 tokens, each of one row, and of all
    a0 a1 a2 a3 a4 b0 c0 c1 . .                  heads (up to 16) of one key/value head
    [a0 a1 a2 a3] [a4 . . .] [c0 c1 . .] [. .]   b is left to `paged_decode`, padding gives zeros

Tokens and heads together are the 128 rows of a product (fewer of wide heads), so that a group reads
its keys once. A block goes through the tiles that all its queries see whole, which are most of
them, without a mask.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Float32, Int32, Num

from pallas_kernels.attention.triton_tiles import (
    STAGES,
    Pages,
    add_tile,
    first_tile,
    linear_bias,
    no_sums,
    operand_dtype,
)
from pallas_kernels.triton import load, load_rows, parts, power_of_two, store_rows

_MOST_HEADS = 16  # of a block


class Tiling(NamedTuple):
    """Sizes of a block."""

    rows: int  # of its products: tokens x heads
    keys: int  # of a tile
    warps: int


def tiling(H: int) -> Tiling:
    """What a thread's registers and two tiles in 99 KB of shared memory, Ada's, have room for."""
    if H <= 128:
        return Tiling(128, 32, 4 if H <= 64 else 8)
    return Tiling(32, 16, 4) if H <= 192 else Tiling(64, 16, 8)


class Blocks(NamedTuple):
    """Which tokens each block has."""

    row: Int32[Array, " M"]
    first: Int32[Array, " M"]  # its first token
    left: Int32[Array, " M"]  # tokens from there to the end of the row; 0: an empty block
    position: Int32[Array, " M"]  # of its first token; -1: padding


def cut(
    start: Int32[Array, " B"], count: Int32[Array, " B"], positions: Int32[Array, " T"],
    size: int, least: int,
) -> Blocks:  # fmt: skip
    """Blocks of `size` tokens of rows that have `least`, then of the padding behind all rows."""
    T, B = positions.size, start.size
    tokens = count.sum()
    begin = jnp.append(start, tokens)
    many = jnp.append(jnp.where(count >= least, count, 0), T - tokens)
    ends = jnp.cumsum(-(-many // size))  # [B + 1] one past each row's last block
    block = jnp.arange(T // size + B + 1)
    row = jnp.minimum(jnp.searchsorted(ends, block, side="right", method="compare_all"), B)
    offset = (block - ends[row] + -(-many[row] // size)) * size
    left = jnp.where(block < ends[-1], many[row] - offset, 0)
    first = begin[row] + offset
    position = jnp.where(row < B, positions[jnp.minimum(first, T - 1)], -1)
    found = (jnp.minimum(row, B - 1), first, left, position)
    return Blocks(*(x.astype(jnp.int32) for x in found))


def triton_ragged(
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
    (_, N, H), K = q.shape, k_pages.shape[1]
    G, sizes = N // K, tiling(H)
    heads = min(power_of_two(G), _MOST_HEADS)
    blocks = cut(start, count, positions, sizes.rows // heads, least)
    extras = [x for x in (k_scales, v_scales, sinks, slopes) if x is not None]
    found: Array = pl.pallas_call(
        partial(
            ragged_attention_kernel, heads=heads, sizes=sizes, scale=scale, window=window,
            softcap=softcap, scaled=k_scales is not None, has_slopes=slopes is not None,
        ),
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        grid=(K * -(-G // heads), blocks.row.size),
        compiler_params=plt.CompilerParams(num_warps=sizes.warps, num_stages=STAGES),
        interpret=interpret,
    )(q, k_pages, v_pages, page_table, *blocks, *extras)  # fmt: skip
    return found


def ragged_attention_kernel(
    # in the GPU's memory
    q: Any, k: Any, v: Any, table: Any, block_row: Any, block_first: Any, block_count: Any,
    block_position: Any, *rest: Any,
    heads: int, sizes: Tiling, scale: float, window: int | None, softcap: float | None,
    scaled: bool, has_slopes: bool,
) -> None:  # fmt: skip
    """One block: tokens of one row, heads of one key/value head."""
    scales, others, (out,) = rest[: 2 * scaled], rest[2 * scaled : -1], rest[-1:]
    slopes, sinks = (others, ()) if has_slopes else ((), others)
    R, tile = sizes.rows, sizes.keys
    H, G = q.shape[2], q.shape[1] // k.shape[1]
    size, head_blocks = R // heads, -(-G // heads)
    # later tokens see more keys: they begin first
    block = block_row.shape[0] - 1 - pl.program_id(1)
    kv_head = lax.div(pl.program_id(0), jnp.int32(head_blocks))
    of_group = lax.rem(pl.program_id(0), jnp.int32(head_blocks)) * heads + jnp.arange(R) % heads
    offset = jnp.arange(R) // heads
    count = jnp.minimum(block_count[block], size)
    mine = (offset < count) & (of_group < G)
    token, head = block_first[block] + offset, kv_head * G + of_group
    oldest, operand = block_position[block], operand_dtype(q.dtype, k.dtype)

    @pl.when(count > 0)
    def _attend() -> None:
        position = jnp.where(mine & (oldest >= 0), oldest + offset, -1)
        newest = oldest + count - 1
        pages = Pages(k, v, scales, table, block_row[block], kv_head)
        queries = [
            load_rows(q.at[token[:, None], head[:, None], part], mine).astype(operand)
            for part in parts(H)
        ]

        def step(masked: bool, index: Any, sums: Any) -> Any:
            key = index * tile + jnp.arange(tile)
            written = seen = None
            if masked:
                written = key <= newest  # beyond lies what others left
                seen = key[None] <= position[:, None]
                if window is not None:
                    seen &= key[None] > position[:, None] - window
            return add_tile(
                sums, queries, pages, key, written=written, seen=seen, scale=scale,
                softcap=softcap, bias=linear_bias(slopes, head, mine, key, newest),
            )  # fmt: skip

        def tiles(position: Any) -> Any:
            return lax.div(jnp.maximum(position, 0), jnp.int32(tile))

        sums = no_sums(R, H, load(sinks[0].at[head], mine).astype(jnp.float32) if sinks else None)
        first, last = first_tile(oldest, window, tile), tiles(newest + tile)
        last = jnp.where(oldest < 0, 0, last)
        whole = tiles(oldest + 1)  # one past the last that all see
        if window is not None:
            first_whole = jnp.minimum(tiles(newest - window + tile), last)
            sums = lax.fori_loop(first, first_whole, partial(step, True), sums)
            first, whole = first_whole, jnp.maximum(whole, first_whole)
        sums = lax.fori_loop(first, whole, partial(step, False), sums)
        sums = lax.fori_loop(whole, last, partial(step, True), sums)
        for part, result in zip(parts(H), sums.result(), strict=True):
            store_rows(out.at[token[:, None], head[:, None], part], result, mine)
