"""Decode attention in parts: how many blocks share a row's keys, and how their parts make a whole.

A part is the average of its values, the peak of its scores and the total of its weights; an empty
one has a total of 0. All scores are in base 2.
"""

from functools import reduce

import jax.numpy as jnp
from jaxtyping import Array, Float32

SPLITS = (1, 2, 4, 8, 16)
_BLOCKS_PER_CORE = 2


def choose_splits(blocks: int, keys: int, tile: int, num_cores: int) -> int:
    """Enough to fill the GPU, each with a tile to do."""
    fitting = [n for n in SPLITS if n <= -(-keys // tile)]
    filling = [n for n in fitting if blocks * n >= _BLOCKS_PER_CORE * num_cores]
    return min(filling, default=fitting[-1])


def combine_parts(
    parts: Float32[Array, "C *heads H"],
    peaks: Float32[Array, "C *heads"],
    totals: Float32[Array, "C *heads"],
) -> Float32[Array, "*heads H"]:
    """The parts of each row as one: each counts as much as its weights summed to.

    Written without reductions, so that XLA makes it one kernel.
    """
    highest = reduce(jnp.maximum, list(peaks))
    share = [jnp.exp2(p - highest) * t for p, t in zip(peaks, totals, strict=True)]
    whole = jnp.maximum(reduce(jnp.add, share), 1e-30)
    weighted = [part * (s / whole)[..., None] for part, s in zip(parts, share, strict=True)]
    combined: Array = reduce(jnp.add, weighted)
    return combined
