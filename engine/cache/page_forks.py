"""Pages copied within the device's pool, for texts that go on differently in the middle of a page.

    pool ── gather 8 pages ──> 8 others, in place          before the step that continues them

Owns that one program. Knows not why a page is copied.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int32

from engine.cache.page_copies import set_rows
from models.layers.attention import KVCache
from models.sharding import TENSOR

FORKED_PAGES = 8  # that one call copies; the sink fills them up


class PageForks:
    """The program for one pool, described by `cache`, of `num_layers` layers."""

    def __init__(self, cache: KVCache, num_layers: int, mesh: Mesh) -> None:
        self._cache = cache
        self._pages = NamedSharding(mesh, PartitionSpec())
        pool = NamedSharding(mesh, PartitionSpec(None, TENSOR))
        fork = partial(_fork, layers=num_layers)
        self._fork: Any = jax.jit(fork, donate_argnums=0, out_shardings=pool)

    def warm_up(self) -> None:
        pages = jax.ShapeDtypeStruct((2, FORKED_PAGES), np.int32, sharding=self._pages)
        self._fork = self._fork.lower(self._cache, pages).compile()

    @property
    def temporary_bytes(self) -> int:
        """Of each device, while pages are copied; the program must be compiled."""
        return int(self._fork.memory_analysis().temp_size_in_bytes)

    def make(self, cache: KVCache, forks: Sequence[tuple[int, int]]) -> KVCache:
        """Copy the first page of each pair onto the second; no page is in both places."""
        for first in range(0, len(forks), FORKED_PAGES):
            batch = forks[first : first + FORKED_PAGES]
            pages = np.zeros((2, FORKED_PAGES), np.int32)
            pages[:, : len(batch)] = np.array(batch, np.int32).T
            cache = self._fork(cache, pages)
        return cache


def _fork(cache: KVCache, pages: Int32[Array, "2 N"], *, layers: int) -> KVCache:
    def copy(array: Array) -> Array:
        first_rows = jnp.arange(layers)[:, None] * (array.shape[0] // layers)
        source, target = (first_rows + pages[:, None, :]).reshape(2, -1)
        return set_rows(array, target, array[source])

    forked: KVCache = jax.tree.map(copy, cache)
    return forked
