"""Norm, rotation and the write into pages of one token a block, for Hopper, in Pallas Mosaic GPU.

    qkv[t] ─ TMA ─> [heads, R/2] first halves ─┐ registers: norm,  ┌─> same places ─ TMA ─> q[t]
             TMA ─> [heads, R/2] second halves ┼ rotate, quantise ─┼─> same places ─ TMA ─> pages
             TMA ─> [heads, H-R] not rotated ──┘                   └─>

A head comes in pieces, so that both numbers of a rotated pair lie in the same thread, and all heads
go out at once, though they lie apart in pages. What is neither normed nor rotated nor quantised is
copied by TMA alone. A block is 128 threads and 5 to 40 KB: a core holds up to 16,
so that the tokens of one keep the memory busy while those of another are computed.
"""

from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Int32

from pallas_kernels.cache.quantise import LARGEST, SMALLEST_SCALE, is_quantised
from pallas_kernels.cache.reference import HeadNorms, Pages, Turn
from pallas_kernels.mosaic import across, cast, interpreter, load, spread

_VECTOR = 4  # neighbouring numbers in a thread
_MOST_COLUMNS = 64  # of a tile of registers: 16 threads a row
_REGISTERS = 32  # of a thread, that hold the tiles of one turn of the loop over heads


class _Kind(NamedTuple):
    """Queries, keys or values: where they are in a token's row, and how they come."""

    first: int  # head
    heads: int
    widths: tuple[int, ...]  # of the pieces of a head
    turned: bool
    normed: bool
    dtype: Any  # as stored

    @property
    def computed(self) -> bool:
        return self.turned or self.normed or self.quantised

    @property
    def quantised(self) -> bool:
        return is_quantised(self.dtype)

    @property
    def columns(self) -> int:
        """Of a tile: the largest power of two that divides all pieces."""
        return min(_MOST_COLUMNS, *(width & -width for width in self.widths))

    @property
    def tile_rows(self) -> int:
        return 4 * 32 * _VECTOR // self.columns

    @property
    def rows(self) -> int:
        """Heads, and as many rows of nothing as make whole tiles."""
        return -(-self.heads // self.tile_rows) * self.tile_rows if self.computed else self.heads

    @property
    def step(self) -> int:
        """Heads in registers at once."""
        tile = self.tile_rows * sum(self.widths) // 128
        return min(self.rows, self.tile_rows * max(1, _REGISTERS // tile))

    @property
    def layout(self) -> Any:
        """A warp holds whole rows, a thread 4 neighbours: sums over a head stay in the warp."""
        rows, columns = self.tile_rows, self.columns
        tiling = plgpu.Tiling(((rows, columns), (rows // 4, columns), (_VECTOR,)))
        return plgpu.Layout.TILED(tiling, warp_dims=(-5,), lane_dims=(-3, -2), vector_dim=-1)


def mosaic_qkv_write(
    qkv: Float[Array, "T columns"],
    pages: Pages,
    page: Int32[Array, " T"],
    slot: Int32[Array, " T"],
    *,
    head_dim: int,
    turn: Turn | None = None,
    norms: HeadNorms | None = None,
    interpret: bool = False,
) -> tuple[Float[Array, "T N Hp"], Pages]:
    """`qkv_write` in the limits of `check_qkv_write`.

    `interpret` runs it without a GPU, watching for races.
    """
    T, K, width = qkv.shape[0], pages.k.shape[1], pages.k.shape[3]
    heads = qkv.reshape(T, -1, head_dim)
    kinds = _kinds(heads.shape[1] - 2 * K, K, head_dim, qkv.dtype, pages, turn, norms)
    updated = [jax.new_ref(array) for array in pages if array is not None]
    q = plgpu.kernel(
        partial(
            qkv_write_kernel, kinds=kinds, eps=norms and norms.eps,
            offset=norms and norms.offset, interpret=interpret,
        ),
        out_type=jax.ShapeDtypeStruct((T, kinds[0].heads, width), qkv.dtype),
        grid=(T,),
        grid_names=("token",),
        scratch_types=_scratch(kinds, width - head_dim, qkv.dtype),
        interpret=interpreter(interpret),
    )(
        heads, page, slot, turn or (), () if norms is None else (norms.q, norms.k), updated
    )  # fmt: skip
    return q, Pages(*(ref[...] for ref in updated))


def _kinds(
    N: int, K: int, H: int, dtype: Any, pages: Pages, turn: Turn | None, norms: Any
) -> tuple[_Kind, _Kind, _Kind]:
    pairs = 0 if turn is None else turn[0].shape[1]
    pieces = tuple(width for width in (pairs, pairs, H - 2 * pairs) if width)
    kind = partial(_Kind, widths=pieces, turned=pairs > 0, normed=norms is not None)
    return (
        kind(0, N, dtype=dtype),
        kind(N, K, dtype=pages.k.dtype),
        _Kind(N + K, K, (H,), False, False, pages.v.dtype),
    )


def _scratch(kinds: tuple[_Kind, ...], padding: int, dtype: Any) -> list[Any]:
    """Shared memory of one block: pieces as they come, in eight bits, scales, zeros, barriers."""

    def pieces(kind: _Kind, dtype: Any) -> list[Any]:
        # row after row: a tiling that can be cut anywhere, as Mosaic's own choice cannot
        rows = (plgpu.TilingTransform((1, kind.columns)),)
        return [plgpu.SMEM((kind.rows, width), dtype, transforms=rows) for width in kind.widths]

    return [
        [pieces(kind, dtype) for kind in kinds],
        [pieces(kind, kind.dtype) if kind.quantised else [] for kind in kinds],
        [[plgpu.SMEM((kind.rows,), jnp.float32)] * kind.quantised for kind in kinds],
        [plgpu.SMEM((-(-kind.heads // 16) * 16, padding), kind.dtype) for kind in kinds if padding],
        [plgpu.Barrier(num_arrivals=len(kind.widths)) for kind in kinds],
    ]


def qkv_write_kernel(
    heads: Any, page: Any, slot: Any, turn: Any, norms: Any, updated: Any, q: Any,
    pieces: Any, eighths: Any, scales: Any, zeros: Any, ready: Any,
    *, kinds: tuple[_Kind, ...], eps: Any, offset: Any, interpret: bool,
) -> None:  # fmt: skip
    """One block: one token."""
    token = lax.axis_index("token")
    for kind, tiles, done in zip(kinds, pieces, ready, strict=True):
        for tile, columns in zip(tiles, _places(kind.widths), strict=True):
            source = heads.at[token, pl.ds(kind.first, kind.heads), columns]
            plgpu.copy_gmem_to_smem(source, tile.at[pl.ds(0, kind.heads)], done)
    place, where = page[token], slot[token]
    by_column = kinds[0].layout.reduce(0)
    turns = [cast(load(part.at[token]), by_column, interpret) for part in turn]
    for number, kind in enumerate(kinds):
        weights = []
        if kind.normed:
            weights = [
                cast(load(norms[number].at[columns]), by_column, interpret) + offset
                for columns in _places(kind.widths)
            ]
        plgpu.barrier_wait(ready[number])
        for row in range(0, kind.rows if kind.computed else 0, kind.step):
            rows = pl.ds(row, min(kind.step, kind.rows - row))
            sources = [tile.at[rows] for tile in pieces[number]]
            parts = [cast(load(x), kind.layout, interpret).astype(jnp.float32) for x in sources]
            if kind.normed:
                parts = _normed(parts, weights, eps)
            if kind.turned:
                parts = _turned(parts, *turns)
            if kind.quantised:
                parts, scales[number][0][rows] = _quantised(parts, kind.dtype)
                sources = [tile.at[rows] for tile in eighths[number]]
            for source, part in zip(sources, parts, strict=True):
                source[...] = part.astype(source.dtype)
    for tile in zeros:
        tile[...] = jnp.zeros_like(tile[...])
    plgpu.commit_smem()

    def put(number: int, target: Any) -> None:
        kind, H = kinds[number], sum(kinds[number].widths)
        tiles = eighths[number] or pieces[number]
        for tile, columns in zip(tiles, _places(kind.widths), strict=True):
            plgpu.copy_smem_to_gmem(tile.at[pl.ds(0, kind.heads)], target(columns))
        for tile in zeros[number : number + 1]:
            columns = pl.ds(H, tile.shape[1])
            plgpu.copy_smem_to_gmem(tile.at[pl.ds(0, kind.heads)], target(columns))

    put(0, lambda columns: q.at[token, :, columns])

    @pl.when(place < updated[0].shape[0])
    def _() -> None:
        for number, pages in enumerate(updated[:2], start=1):
            put(number, lambda columns, pages=pages: pages.at[place, :, where, columns])
        for number, target in enumerate(updated[2:], start=1):
            for head in range(kinds[number].heads):
                target[place, head, where] = scales[number][0][head]

    plgpu.wait_smem_to_gmem(0)


def _places(widths: tuple[int, ...]) -> list[Any]:
    """The columns of each piece."""
    return [pl.ds(sum(widths[:i]), width) for i, width in enumerate(widths)]


def _normed(parts: list[Any], weights: list[Any], eps: float) -> list[Any]:
    squares = sum(jnp.sum(part * part, axis=1) for part in parts)
    factor = lax.rsqrt(squares / sum(part.shape[1] for part in parts) + eps)
    return [
        part * across(factor, part) * spread(weight, part)
        for part, weight in zip(parts, weights, strict=True)
    ]


def _turned(parts: list[Any], cos: Any, sin: Any) -> list[Any]:
    a, b, *rest = parts
    cos, sin = spread(cos, a), spread(sin, a)
    return [a * cos - b * sin, b * cos + a * sin, *rest]


def _quantised(parts: list[Any], dtype: Any) -> tuple[list[Any], Any]:
    """As `quantise`, of heads in pieces."""
    largest = LARGEST[jnp.dtype(dtype).name]
    peak = reduce(jnp.maximum, [jnp.max(jnp.abs(part), axis=1) for part in parts])
    scale = jnp.maximum(peak / largest, SMALLEST_SCALE)
    ratios = [part / across(scale, part) for part in parts]
    ratios = [jnp.clip(ratio, -largest, largest) for ratio in ratios]
    if jnp.issubdtype(dtype, jnp.integer):
        ratios = [jnp.round(ratio) for ratio in ratios]
    return ratios, scale
