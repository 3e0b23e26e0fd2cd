"""The warpgroup of `mosaic_ragged.py` that fetches tiles for the two that compute.

    16 bits   page ─ TMA ─> tile
    8 bits    page ─ TMA ─> raw tile ─> registers, times scale ─> tile, bfloat16
              scales ─ TMA ─> raw scales ─┘

Tiles of 8 bits are converted here, once for both warpgroups, while others are on their way: those
that compute have neither time nor registers left, and see what a cache in bfloat16 would hold.
"""

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.typing import DTypeLike

from pallas_kernels.attention.mosaic_tiles import swizzled
from pallas_kernels.mosaic import across, cast, load

_PIECE = 64  # rows and columns that are converted at a time: 16 registers


class Kind(NamedTuple):
    """Keys, or values."""

    pages: Any  # in the GPU's memory: [P K S H]
    scales: Any  # [P K S], or None
    tiles: Any  # in shared memory: [stages tile H]
    ready: Any
    free: Any


class Eight(NamedTuple):
    """What keys and values of 8 bits take more of shared memory."""

    tiles: Any  # [2 tile H], of keys and of values, as they come
    scales: Any  # [2 tile]
    ready: Any


def eight_scratch(H: int, tile: int, S: int, dtype: DTypeLike) -> list[Any]:
    """The fields of `Eight`."""
    return [
        plgpu.SMEM((2, tile, H), dtype, transforms=swizzled(_PIECE, dtype)),
        plgpu.SMEM((2, tile), jnp.float32),
        plgpu.Barrier(num_arrivals=2 * max(1, tile // S), num_barriers=2),
    ]


def copy_tile(
    copies: list[tuple[Any, Any, Any]], table: Any, row: Any, head: Any, tile: Any, newest: Any
) -> None:
    """Start to copy [pages, target, barrier]; the last pages of a row stand for those beyond."""
    size, S = copies[0][1].shape[0], copies[0][0].shape[2]
    for piece in range(max(1, size // S)):
        key = jnp.minimum(tile * size + piece * S, newest)
        page = table[row, lax.div(key, jnp.int32(S))]
        slots = pl.ds(lax.rem(tile * size, jnp.int32(S)), size) if size < S else slice(None)
        rows = pl.ds(piece * S, min(S, size))
        for pages, target, ready in copies:
            plgpu.copy_gmem_to_smem(pages.at[page, head, slots], target.at[rows], ready)


def fetch_16(kinds: list[Kind], start: Any, step: Any) -> None:
    """Keys, then values; `start` starts copies of what the step is about."""
    slot = lax.rem(step, jnp.int32(kinds[0].tiles.shape[0]))
    for kind in kinds:
        _wait_until_free(kind, step)
        start([(kind.pages, kind.tiles.at[slot], kind.ready.at[slot])])


def fetch_8(kinds: list[Kind], eight: Eight, interpret: bool, start: Any, step: Any) -> None:
    """The same; each takes the place of what came before it, which is converted first."""
    for number, kind in enumerate(kinds):
        pl.when(step > 0)(partial(_convert, number, kind, eight, interpret, step - 1))
        ready = eight.ready.at[number]
        start([
            (kind.pages, eight.tiles.at[number], ready),
            (kind.scales, eight.scales.at[number], ready),
        ])  # fmt: skip


def finish(kinds: list[Kind], eight: Eight | None, interpret: bool, steps: Any) -> None:
    """Convert what has come last; wait until nobody reads what has been fetched."""
    if eight is not None:
        for number, kind in enumerate(kinds):
            pl.when(steps > 0)(partial(_convert, number, kind, eight, interpret, steps - 1))
    for back in range(kinds[0].tiles.shape[0]):
        for kind in kinds:
            _wait_until_free(kind, steps + back)


def _wait_until_free(kind: Kind, step: Any) -> None:
    """Until what lies where this step's tile will is read."""
    stages = kind.tiles.shape[0]
    slot = lax.rem(step, jnp.int32(stages))
    pl.when(step >= stages)(partial(plgpu.barrier_wait, kind.free.at[slot]))


def _convert(number: int, kind: Kind, eight: Eight, interpret: bool, step: Any) -> None:
    """Of a step: 0 its keys, 1 its values."""
    stages, size, H = kind.tiles.shape
    slot = lax.rem(step, jnp.int32(stages))
    plgpu.barrier_wait(eight.ready.at[number])
    _wait_until_free(kind, step)
    for row in range(0, size, _PIECE):
        rows = pl.ds(row, _PIECE)
        scale = cast(load(eight.scales.at[number, rows]), plgpu.Layout.WGMMA.reduce(1), interpret)
        for column in range(0, H, _PIECE):
            columns = pl.ds(column, _PIECE)
            numbers = load(eight.tiles.at[number, rows, columns])
            # the hardware converts to these, and these to float32
            middle = jnp.bfloat16 if numbers.dtype == jnp.int8 else jnp.float16
            numbers = numbers.astype(middle).astype(jnp.float32)
            tile = kind.tiles.at[slot, rows, columns]
            tile[...] = (numbers * across(scale, numbers)).astype(tile.dtype)
    plgpu.commit_smem()
    plgpu.barrier_arrive(kind.ready.at[slot])
