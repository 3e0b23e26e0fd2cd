"""What the Triton kernels of attention share: one tile of keys and values, from pages to sums.

    page table ─ numbers of pages ─ one address a key ─> K, V [keys, H] ─ mma ─> scores ─> sums

A tile takes its keys from any number of pages, each by its own address, so a page may be shorter or
longer than a tile.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from pallas_kernels.attention.reference import MASKED
from pallas_kernels.cache.quantise import SMALLEST_SCALE, is_quantised
from pallas_kernels.triton import from_e4m3, load, load_rows, parts

LOG2E = math.log2(math.e)
STAGES = 5  # two loads one after the other, page and keys: with 5, Triton keeps two tiles in flight


class Sums(NamedTuple):
    """Online softmax of R queries over the keys so far, in base 2."""

    weighted: tuple[Any, ...]  # [R, part of H] each: values by their weights
    peak: Any  # [R] largest score
    total: Any  # [R] of the weights

    def result(self) -> tuple[Any, ...]:
        """The average of the values; zeros where no key was seen."""
        whole = jnp.maximum(self.total, 1e-30)[:, None]
        return tuple(part / whole for part in self.weighted)


def no_sums(R: int, H: int, sinks: Any = None) -> Sums:
    """Before the first key. A sink is a key that was seen already, whose value is nothing."""
    weighted = tuple(jnp.zeros((R, part.size), jnp.float32) for part in parts(H))
    if sinks is not None:
        return Sums(weighted, sinks * LOG2E, jnp.ones((R,), jnp.float32))
    return Sums(weighted, jnp.full((R,), MASKED), jnp.zeros((R,), jnp.float32))


class Tile(NamedTuple):
    """Keys and values as the tensor core takes them, in parts of H."""

    keys: list[Any]  # [part of H, keys]
    values: list[Any]  # [keys, part of H]
    scales: tuple[Any, ...] = ()  # times which keys and values are meant, if in eight bits


class Pages(NamedTuple):
    """The keys and values of one row and one head."""

    k: Any  # [P, K, S, H]
    v: Any
    scales: Sequence[Any]  # of keys and of values, [P, K, S]; or none
    table: Any  # [B, MP]
    row: Any
    head: Any

    def load(self, key: Any, written: Any) -> Tile:
        """Those at the positions `key`, zeros where they are not `written` (None: all are)."""
        S, H = self.k.shape[2:]
        page = load(self.table.at[self.row, lax.div(key, jnp.int32(S))], written)
        slot = lax.rem(key, jnp.int32(S))
        keys, values = (
            [
                load_rows(pages.at[page[:, None], self.head, slot[:, None], part], written)
                for part in parts(H)
            ]
            for pages in (self.k, self.v)
        )
        keys = [part.T for part in keys]
        if not self.scales:
            return Tile(keys, values)
        ks, vs = (load(array.at[page, self.head, slot], written) for array in self.scales)
        keys, k_scale = _dequantised(keys, ks, 0)
        values, v_scale = _dequantised(values, vs, 1)
        return Tile(keys, values, (k_scale, v_scale))


def operand_dtype(q: DTypeLike, pages: DTypeLike) -> Any:
    """What is multiplied: of eight bits float16, which holds all their numbers."""
    return jnp.dtype(jnp.float16 if is_quantised(pages) else q)


def _dequantised(numbers: list[Any], scales: Any, axis: int) -> tuple[list[Any], Any]:
    """Numbers of eight bits by their scales, over the largest of a tile; and that.

    `axis` is the one along which a vector lies. The sum is over one entry: it keeps Triton from
    changing the layout before the conversion, when every warp would convert the whole tile.
    """
    largest = jnp.maximum(scales.max(), SMALLEST_SCALE)
    share = jnp.sum(jnp.expand_dims(scales / largest, axis), axis=axis, keepdims=True)
    if numbers[0].dtype == jnp.float8_e4m3fn:
        share, numbers = share * 2.0**8, [from_e4m3(x) for x in numbers]
    share = share.astype(jnp.float16)
    return [x.astype(jnp.float16) * share for x in numbers], largest


def add_tile(
    sums: Sums, queries: Sequence[Any], pages: Pages, key: Any, *,
    written: Any, seen: Any, scale: float, softcap: float | None, bias: Any = None,
) -> Sums:  # fmt: skip
    """The sums with the keys at `key`; `written` and `seen` [R, keys] None: all of them are.

    `bias` [R, keys] is added to scores, in base 2.
    """
    tile = pages.load(key, written)
    products = (
        jnp.dot(q, k, preferred_element_type=jnp.float32)
        for q, k in zip(queries, tile.keys, strict=True)
    )
    scores = sum(products, start=jnp.float32(0)) * (scale * LOG2E)
    if tile.scales:
        scores *= tile.scales[0]
    if softcap is not None:  # c tanh(s / c), by an exponential
        high = softcap * LOG2E
        scores = high - 2 * high / (1 + jnp.exp2(scores * (2 * LOG2E / high)))
    if bias is not None:
        scores += bias
    if tile.scales:  # with that of its value, a weight is still at most 1
        scores += jnp.log2(tile.scales[1])
    if seen is not None:
        scores = jnp.where(seen, scores, -jnp.inf)
    peak = jnp.maximum(sums.peak, scores.max(axis=1))
    decay = jnp.exp2(sums.peak - peak)
    weights = jnp.exp2(scores - peak[:, None])
    counted = weights.sum(axis=1)
    if tile.scales:
        counted /= tile.scales[1]
    total = sums.total * decay + counted
    weighted = tuple(
        acc * decay[:, None]
        + jnp.dot(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
        for acc, v in zip(sums.weighted, tile.values, strict=True)
    )
    return Sums(weighted, peak, total)


def linear_bias(slopes: Sequence[Any], head: Any, mine: Any, key: Any, newest: Any) -> Any:
    """[R, keys]: of each head, by how far keys lie before `newest`; None without slopes.

    Softmax does not see that distances are not those from each query.
    """
    if not slopes:
        return None
    slope = load(slopes[0].at[head], mine).astype(jnp.float32) * LOG2E
    return slope[:, None] * (key - newest)[None].astype(jnp.float32)


def first_tile(position: Any, window: int | None, tile: int) -> Any:
    """The first that a query at `position` sees some of."""
    if window is None:
        return jnp.int32(0)
    return lax.div(jnp.maximum(position - window + 1, 0), jnp.int32(tile))
