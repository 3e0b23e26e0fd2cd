"""A bias of attention scores by how far apart query and key are, as in T5 (arXiv 1910.10683).

    distance   0 1 .. n/2-1 | n/2 ... logarithmically wider ... longest and beyond
    bucket     0 1 .. n/2-1 | n/2 ...                           n-1

Each head has a number for each bucket, the same in all layers or, in umT5 (arXiv 2304.09151), of
each layer its own. Owns distances and buckets; attention adds the numbers.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32


@dataclass(frozen=True)
class RelativeBias:
    """How distances become buckets."""

    buckets: int  # of an encoder half of them are for keys behind the query
    max_distance: int  # from here on all have the last one
    by_layer: bool = False  # every layer has numbers of its own; else all have the same


def backward_bias(
    kind: RelativeBias, table: Float[Array, "buckets N"]
) -> Float32[Array, "N distances"]:
    """What each head adds for a key 0, 1 .. max_distance back, the last standing for all beyond."""
    back = np.arange(kind.max_distance + 1)
    return table[_buckets(back, kind.buckets, kind.max_distance)].T.astype(jnp.float32)


def two_sided_bias(
    kind: RelativeBias, table: Float[Array, "buckets N"]
) -> Float32[Array, "N distances"]:
    """The same for key - query from -max_distance to max_distance."""
    offset = np.arange(-kind.max_distance, kind.max_distance + 1)
    half = kind.buckets // 2
    bucket = _buckets(np.abs(offset), half, kind.max_distance) + half * (offset > 0)
    return table[bucket].T.astype(jnp.float32)


def _buckets(distance: np.ndarray, count: int, longest: int) -> np.ndarray:
    """In float32, as the models were trained: a boundary may lie on a power of two."""
    exact = count // 2
    ratio = np.maximum(distance, 1).astype(np.float32) / np.float32(exact)
    share = np.log(ratio) / np.float32(math.log(longest / exact))
    wide = exact + (share * np.float32(count - exact)).astype(np.int64)
    return np.where(distance < exact, distance, np.minimum(wide, count - 1))
