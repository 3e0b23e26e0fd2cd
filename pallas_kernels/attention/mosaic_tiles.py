"""Keys and values on their way from pages to the tensor cores, in Pallas Mosaic GPU.

    16 bits   page ─ TMA ─> tile ─────────────────────────────> operand in shared memory
    8 bits    page ─ TMA ─> tile ─> registers, 16 bits ───────> operand in registers (keys)
                                                 └─> `wide` ──> operand in shared memory (values)
              scales of keys and of values ─ TMA ─> with the tile of keys

Values are read down their columns, which the tensor core does for 16 bits only and never from
registers: of 8 bits each tile is written once more. Both conversions are exact. Knows no softmax.
"""

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.typing import DTypeLike

from pallas_kernels.cache.quantise import is_quantised
from pallas_kernels.mosaic import load, zero_rows_after

TILE = 64  # keys of one product


def operand_dtype(q: DTypeLike, pages: DTypeLike) -> Any:
    """What is multiplied: of 8 bits, what the hardware converts them to."""
    if not is_quantised(pages):
        return jnp.dtype(q)
    return jnp.dtype(jnp.bfloat16 if jnp.issubdtype(pages, jnp.integer) else jnp.float16)


def swizzled(width: int, dtype: DTypeLike) -> tuple[Any, Any]:
    """How rows of `width` numbers lie in shared memory: 8 rows of 128 or 64 bytes a piece."""
    item = jnp.dtype(dtype).itemsize
    row = 64 if width * item % 128 else 128
    return plgpu.TilingTransform((8, row // item)), plgpu.SwizzleTransform(row)


class Stream(NamedTuple):
    """Pages in the GPU's memory, tiles of them in shared memory, and the barriers between."""

    pages: Any  # [P K S ...]
    tiles: Any  # [stages T ...]
    ready: Any  # [stages]; those that are used together may share it


def fetch(
    streams: list[Stream], table: Any, row: Any, head: Any, newest: Any, tile: Any, slot: Any
) -> None:
    """Start the copies of one tile; of pages that the row does not own none is read."""
    S = streams[0].pages.shape[2]
    for part in range(max(1, TILE // S)):
        key = jnp.minimum(tile * TILE + part * S, newest)
        page = table[row, lax.div(key, jnp.int32(S))]
        slots = pl.ds(lax.rem(tile * TILE, jnp.int32(S)), TILE) if S > TILE else slice(None)
        rows = pl.ds(part * S, min(S, TILE))
        for source, target, ready in streams:
            plgpu.copy_gmem_to_smem(
                source.at[page, head, slots], target.at[slot, rows], ready.at[slot]
            )


def keys_operand(tile: Any, dtype: Any) -> Any:
    """A tile of keys, from where the tensor core takes it."""
    return tile if tile.dtype == dtype else load(tile).astype(dtype)


def values_operand(tile: Any, wide: list[Any], last: Any, interpret: bool) -> Any:
    """A tile of values in shared memory, in 16 bits; rows beyond number `last` are zero.

    There lies what others left, even NaN, which 0 x NaN would keep.
    """
    stale = last < TILE - 1
    if wide:
        (wide_tile,) = wide
        wide_tile[...] = load(tile).astype(wide_tile.dtype)
        pl.when(stale)(plgpu.commit_smem)  # other threads clear than have written
        tile = wide_tile
    pl.when(stale)(partial(zero_rows_after, tile, last, interpret))
    plgpu.commit_smem()
    return tile
