"""Norm, rotation and the write into pages, for Ampere and Ada, in Pallas Triton.

    block = one token, heads of one kind ─ registers: norm, rotate, quantise ─┬─> q[t]
                                                                              └─> pages, in place

A head comes in pieces, so that both numbers of a rotated pair lie in the same thread; a row of a
piece lies in one warp, so that norms and scales are sums within it. A block has about 2,048
numbers, 16 in a thread: 64 tokens make 256 blocks of Llama 3.1 8B, and 16 of them fit on a core.
"""

from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Int32

from pallas_kernels.cache.quantise import LARGEST, SMALLEST_SCALE, is_quantised
from pallas_kernels.cache.reference import HeadNorms, Pages, Turn
from pallas_kernels.triton import load_rows, parts, power_of_two, store_rows, to_e4m3, to_int8

_NUMBERS = 2048  # of a block


class _Kind(NamedTuple):
    """Queries, keys or values: their heads in a token's row, and their blocks."""

    first_head: int
    heads: int
    first_block: int
    rows: int  # heads of a block
    computed: bool  # normed or rotated, where the step has that

    @property
    def end_block(self) -> int:
        return self.first_block - (-self.heads // self.rows)


def _kinds(N: int, K: int, H: int) -> tuple[_Kind, _Kind, _Kind]:
    def rows(heads: int) -> int:
        return min(power_of_two(heads), max(1, _NUMBERS // power_of_two(H)))

    q = _Kind(0, N, 0, rows(N), True)
    k = _Kind(N, K, q.end_block, rows(K), True)
    return q, k, _Kind(N + K, K, k.end_block, rows(K), False)


def triton_qkv_write(
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
    """`qkv_write`. `interpret` runs it without a GPU."""
    T, K, width = qkv.shape[0], pages.k.shape[1], pages.k.shape[3]
    heads = qkv.reshape(T, -1, head_dim)
    kinds = _kinds(heads.shape[1] - 2 * K, K, head_dim)
    updated = [array for array in pages if array is not None]
    weights = [] if norms is None else [_weights(norms)]
    given = [heads, page, slot, *(turn or ()), *weights]
    q, *written = pl.pallas_call(
        partial(
            qkv_write_kernel, kinds=kinds, turned=turn is not None,
            eps=None if norms is None else norms.eps,
        ),
        out_shape=[
            jax.ShapeDtypeStruct((T, kinds[0].heads, width), qkv.dtype),
            *(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in updated),
        ],
        grid=(T, kinds[-1].end_block),
        input_output_aliases={len(given) + i: 1 + i for i in range(len(updated))},
        compiler_params=plt.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
    )(*given, *updated)  # fmt: skip
    return q, Pages(*written)


def _weights(norms: HeadNorms) -> Float[Array, "2 H"]:
    """Those of queries and keys in one array: two slices of a model's would be two copies."""
    return jnp.stack([norms.q, norms.k]).astype(jnp.float32) + norms.offset


def qkv_write_kernel(
    heads: Any, page: Any, slot: Any, *rest: Any,
    kinds: tuple[_Kind, ...], turned: bool, eps: float | None,
) -> None:  # fmt: skip
    """One block: heads of one kind of one token."""
    given = 2 * turned + (eps is not None)
    turn, weights, results = rest[: 2 * turned], rest[2 * turned : given], rest[given:]
    q, *updated = results[len(results) // 2 :]  # pages are arguments, and the same again as results
    token, block = pl.program_id(0), pl.program_id(1)
    place, where = page[token], slot[token]
    H, width, pairs = heads.shape[2], q.shape[2], turn[0].shape[1] if turned else 0

    def write(number: int, kind: _Kind) -> None:
        head = (block - kind.first_block) * kind.rows + jnp.arange(kind.rows)
        mine, tail = head < kind.heads, ()
        columns = parts(H)
        if kind.computed:
            tail = parts(H - 2 * pairs, 2 * pairs)
            columns = (*parts(pairs), *parts(pairs, pairs), *tail)
        row = (kind.first_head + head)[:, None]
        pieces = [load_rows(heads.at[token, row, part], mine) for part in columns]
        pieces = [piece.astype(jnp.float32) for piece in pieces]
        if kind.computed and eps is not None:
            scale = [plt.load(weights[0].at[number, part]) for part in columns]
            pieces = _normed(pieces, scale, H, eps)
        if kind.computed and turned:
            by = [[plt.load(x.at[token, part]) for part in parts(pairs)] for x in turn]
            pieces = _turned(pieces, *by)
        columns = (*columns, *parts(width - H, H))
        pieces += [jnp.zeros((kind.rows, part.size)) for part in columns[len(pieces) :]]
        if number == 0:
            _store(q, (token, head[:, None]), columns, pieces, mine)
            return
        target = updated[number - 1]
        kept = mine & (place < target.shape[0])
        if is_quantised(target.dtype):
            pieces, scale = _quantised(pieces, target.dtype)
            plt.store(updated[number + 1].at[place, head, where], scale, mask=kept)
        _store(target, (place, head[:, None], where), columns, pieces, kept)

    for number, kind in enumerate(kinds):
        here = (block >= kind.first_block) & (block < kind.end_block)
        pl.when(here)(partial(write, number, kind))


def _store(ref: Any, rows: tuple[Any, ...], columns: Any, pieces: list[Any], mask: Any) -> None:
    for part, piece in zip(columns, pieces, strict=True):
        store_rows(ref.at[*rows, part], piece, mask)


def _normed(pieces: list[Any], weights: list[Any], H: int, eps: float) -> list[Any]:
    squares = reduce(jnp.add, [jnp.sum(piece * piece, axis=1) for piece in pieces])
    factor = lax.rsqrt(squares / H + eps)[:, None]
    return [piece * factor * weight for piece, weight in zip(pieces, weights, strict=True)]


def _turned(pieces: list[Any], cos: list[Any], sin: list[Any]) -> list[Any]:
    n = len(cos)
    first = [a * c - b * s for a, b, c, s in zip(pieces, pieces[n:], cos, sin, strict=False)]
    second = [b * c + a * s for a, b, c, s in zip(pieces, pieces[n:], cos, sin, strict=False)]
    return [*first, *second, *pieces[2 * n :]]


def _quantised(pieces: list[Any], dtype: Any) -> tuple[list[Any], Any]:
    """As `quantise`, of heads in pieces."""
    largest = LARGEST[jnp.dtype(dtype).name]
    peak = reduce(jnp.maximum, [jnp.max(jnp.abs(piece), axis=1) for piece in pieces])
    scale = jnp.maximum(peak / largest, SMALLEST_SCALE)
    ratios = [jnp.clip(piece / scale[:, None], -largest, largest) for piece in pieces]
    convert = to_int8 if jnp.issubdtype(dtype, jnp.integer) else to_e4m3
    return [convert(ratio) for ratio in ratios], scale
