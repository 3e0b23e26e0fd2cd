"""Copies of pages between the device's pool and the host's memory.

    pool ── take: 8 pages a call ──> device ── device_put ──> pinned host memory    stores
    pool <── put, in place ───────── device <── device_put ── pinned host memory    fetches

Nothing waits: both programs and both transfers are queued behind the steps before them, and the
next step behind them, so a page is read before it is written over and written before it is read.
Each copy takes memory of the device meanwhile, so `STAGED_BATCHES` at the most are under way each
way. Pages that would have to wait for others to reach the host are not kept there, and `room` says
how many can come back now; who asks for more, as one may while nobody runs, waits for the oldest.
A page stays one array for each kind of thing in it (keys, values, scales), divided among devices
as the pool is.

Owns the two programs and the transfers. Knows no keys, and not why a page is copied.
"""

from collections import deque
from functools import partial
from itertools import groupby, takewhile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int32

from engine.cache.host_tier import COPY_BATCH, STAGED_BATCHES, Copy, HostTier
from engine.compiling.memory import GIB
from engine.errors import ConfigError
from models.layers.attention import KVCache
from models.sharding import TENSOR, is_cpu

_HOST = "pinned_host"  # which a GPU reads and writes by itself

Page = KVCache  # its arrays are [L K S H] and [L K S]


class PageCopies:
    """The programs for one pool, described by `cache`, of `num_layers` layers, and a tier."""

    def __init__(self, tier: HostTier, cache: KVCache, num_layers: int, mesh: Mesh) -> None:
        self.due = tier.copies
        self._tier = tier
        tier.room = self.room
        self.stored_pages = self.fetched_pages = 0
        self._capacity = tier.capacity
        self._pins = not is_cpu(mesh)
        self._whole = NamedSharding(mesh, PartitionSpec())
        self._device = NamedSharding(mesh, PartitionSpec(None, TENSOR))
        self._host = self._device.with_memory_kind(_HOST)
        self._cache = cache
        self._layers = num_layers
        self._page: Any = jax.tree.map(
            lambda array: jax.ShapeDtypeStruct(
                (num_layers, *array.shape[1:]), array.dtype, sharding=self._device
            ),
            cache,
        )
        self._storing: deque[Any] = deque()
        self._fetching: deque[Any] = deque()

    def warm_up(self) -> None:
        """Compile both programs, and take the host's memory.

        Raises:
            ConfigError: the host has not as much that a GPU can reach.
        """
        ids = jax.ShapeDtypeStruct((COPY_BATCH,), np.int32, sharding=self._whole)
        take = jax.jit(partial(_take, layers=self._layers), out_shardings=self._device)
        put = jax.jit(_put, donate_argnums=0, out_shardings=(self._device, self._whole))
        self._take: Any = take.lower(self._cache, ids).compile()
        self._put: Any = put.lower(self._cache, ids, (self._page,) * COPY_BATCH).compile()
        empty = jax.jit(partial(_empty, self._page), out_shardings=self._device)
        self._padding: Any = empty()
        if self._pins:
            self._reserve()

    def _reserve(self) -> None:
        """Pin memory now, for that is slow, and not while requests wait."""
        try:
            copies = [jax.device_put(self._padding, self._host) for _ in range(self._capacity)]
            jax.block_until_ready(copies)
        except jax.errors.JaxRuntimeError as error:
            page = sum(array.nbytes for array in jax.tree.leaves(self._padding))
            size = self._capacity * page
            raise ConfigError(
                f"{size / GIB:.2f} GiB of host memory cannot be pinned for --kv-offloading-size; "
                f"use less. ({str(error).splitlines()[0]})"
            ) from None

    def room(self) -> int:
        """Pages that can be fetched before the next step, besides those that will be."""
        runs = [(to_host, len(list(run))) for to_host, run in groupby(self.due, _goes_to_host)]
        due = sum(-(-length // COPY_BATCH) for to_host, length in runs if not to_host)
        return COPY_BATCH * max(0, STAGED_BATCHES - _num_under_way(self._fetching) - due)

    def drop_excess(self) -> None:
        """Of pages that are due to go to the host, keep as many as can go now.

        Those that were due last: they were wanted last, and of one text they are the beginning.
        """
        room = COPY_BATCH * (STAGED_BATCHES - _num_under_way(self._storing))
        hosts = [copy.host for copy in self.due if copy.to_host and copy.host.wanted]
        spare = [host for host in hosts if not host.fetched]  # others come back in this very step
        for host in spare[: max(0, len(hosts) - room)]:
            self._tier.drop(host)
        self.due[:] = [copy for copy in self.due if copy.host.wanted or not copy.to_host]

    def make_first(self, cache: KVCache) -> KVCache:
        """Start the first copies that are due, one way and at most 8, and strike them off."""
        due = self.due
        if due[0].to_host and _num_under_way(self._storing) == STAGED_BATCHES:
            self.drop_excess()  # there were more batches than these pages fill
        batch = list(takewhile(lambda copy: copy.to_host == due[0].to_host, due[:COPY_BATCH]))
        if not batch:
            return cache
        if batch[0].to_host:
            self._store(cache, [copy for copy in batch if copy.host.wanted])
        else:
            cache = self._fetch(cache, batch)
        del due[: len(batch)]
        return cache

    def close(self) -> None:
        """Let go of what is under way."""
        for queue in (self.due, self._storing, self._fetching):
            queue.clear()

    def _store(self, cache: KVCache, batch: list[Copy]) -> None:
        if batch:
            pages = self._take(cache, _page_ids(batch))[: len(batch)]
            contents = jax.device_put(pages, self._host)
            for copy, content in zip(batch, contents, strict=True):
                copy.host.content = content
            self.stored_pages += len(batch)
            _wait_for_oldest(self._storing, contents)

    def _fetch(self, cache: KVCache, batch: list[Copy]) -> KVCache:
        pages = jax.device_put(tuple(copy.host.content for copy in batch), self._device)
        padding = (self._padding,) * (COPY_BATCH - len(batch))
        cache, done = self._put(cache, _page_ids(batch), pages + padding)
        self.fetched_pages += len(batch)
        _wait_for_oldest(self._fetching, done)
        return cache


def _page_ids(batch: list[Copy]) -> np.ndarray:
    """int32[8]; the sink fills it up."""
    ids = np.zeros(COPY_BATCH, np.int32)
    ids[: len(batch)] = [copy.page for copy in batch]
    return ids


def _goes_to_host(copy: Copy) -> bool:
    return copy.to_host


def _num_under_way(batches: deque[Any]) -> int:
    """How many are left when those that have arrived are forgotten, which do so in their order."""
    while batches and all(array.is_ready() for array in jax.tree.leaves(batches[0])):
        batches.popleft()
    return len(batches)


def _wait_for_oldest(under_way: deque[Any], newest: Any) -> None:
    under_way.append(newest)
    if len(under_way) > STAGED_BATCHES:
        jax.block_until_ready(under_way.popleft())


def _take(cache: KVCache, ids: Int32[Array, " N"], *, layers: int) -> tuple[Page, ...]:
    """The pages `ids`, each by itself."""

    def read(page: Array) -> Page:
        found: Page = jax.tree.map(lambda array: array[_rows(array, layers, page)], cache)
        return found

    return tuple(read(page) for page in ids)


def _put(cache: KVCache, ids: Int32[Array, " N"], pages: tuple[Page, ...]) -> tuple[KVCache, Array]:
    """Write the pages `ids`; also returns what is there when that is done.

    One scatter of all rows: it is in place on GPUs and CPUs. Eight dynamic_update_slices were not:
    XLA copied the pool, for a CPU and, in fp8, for an H200 (JAX 0.10 and 0.11).
    """

    def write(array: Array, *news: Array) -> Array:
        layers = news[0].shape[0]
        rows = jnp.concatenate([_rows(array, layers, page) for page in ids])
        return set_rows(array, rows, jnp.concatenate(news))

    return jax.tree.map(write, cache, *pages), ids


def set_rows(array: Array, rows: Int32[Array, " R"], content: Array) -> Array:
    """The array with other rows, in place where it is donated: bytes are bytes.

    On a CPU, XLA scatters floats of eight bits in float16, all of the pool (JAX 0.10 and 0.11). On
    a GPU it does not, and numbers looked at as bytes are copied first, all of the pool again.
    """

    def as_bytes(array: Array, rows: Array, content: Array) -> Array:
        number = array.dtype
        whole, new = (lax.bitcast_convert_type(each, jnp.int8) for each in (array, content))
        return lax.bitcast_convert_type(whole.at[rows].set(new), number)

    def as_they_are(array: Array, rows: Array, content: Array) -> Array:
        return array.at[rows].set(content)

    if array.dtype.itemsize > 1:
        return as_they_are(array, rows, content)
    found: Array = lax.platform_dependent(array, rows, content, cpu=as_bytes, default=as_they_are)
    return found


def _rows(array: Array, layers: int, page: Array) -> Array:
    """Rows of one page in an array [L*P ...]."""
    return page + jnp.arange(layers) * (array.shape[0] // layers)


def _empty(page: Page) -> Page:
    empty: Page = jax.tree.map(lambda array: jnp.zeros(array.shape, array.dtype), page)
    return empty
