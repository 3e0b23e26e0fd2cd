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

from pallas_kernels.attention.reference import MASKED
from pallas_kernels.triton import load, load_rows, parts

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


class Pages(NamedTuple):
    """The keys and values of one row and one head."""

    k: Any  # [P, K, S, H]
    v: Any
    table: Any  # [B, MP]
    row: Any
    head: Any

    def load(self, key: Any, written: Any) -> tuple[list[Any], list[Any]]:
        """Those at the positions `key`, zeros where they are not `written` (None: all are)."""
        S, H = self.k.shape[2:]
        page = load(self.table.at[self.row, lax.div(key, jnp.int32(S))], written)[:, None]
        slot = lax.rem(key, jnp.int32(S))[:, None]
        keys, values = (
            [load_rows(pages.at[page, self.head, slot, part], written) for part in parts(H)]
            for pages in (self.k, self.v)
        )
        return keys, values


def add_tile(
    sums: Sums, queries: Sequence[Any], pages: Pages, key: Any, *,
    written: Any, seen: Any, scale: float, softcap: float | None,
) -> Sums:  # fmt: skip
    """The sums with the keys at `key`; `written` and `seen` [R, keys] None: all of them are."""
    keys, values = pages.load(key, written)
    products = (
        jnp.dot(q, k.T, preferred_element_type=jnp.float32)
        for q, k in zip(queries, keys, strict=True)
    )
    scores = sum(products, start=jnp.float32(0)) * (scale * LOG2E)
    if softcap is not None:  # c tanh(s / c), by an exponential
        high = softcap * LOG2E
        scores = high - 2 * high / (1 + jnp.exp2(scores * (2 * LOG2E / high)))
    if seen is not None:
        scores = jnp.where(seen, scores, -jnp.inf)
    peak = jnp.maximum(sums.peak, scores.max(axis=1))
    decay = jnp.exp2(sums.peak - peak)
    weights = jnp.exp2(scores - peak[:, None])
    total = sums.total * decay + weights.sum(axis=1)
    rounded = weights.astype(values[0].dtype)
    weighted = tuple(
        acc * decay[:, None] + jnp.dot(rounded, v, preferred_element_type=jnp.float32)
        for acc, v in zip(sums.weighted, values, strict=True)
    )
    return Sums(weighted, peak, total)


def first_tile(position: Any, window: int | None, tile: int) -> Any:
    """The first that a query at `position` sees some of."""
    if window is None:
        return jnp.int32(0)
    return lax.div(jnp.maximum(position - window + 1, 0), jnp.int32(tile))
