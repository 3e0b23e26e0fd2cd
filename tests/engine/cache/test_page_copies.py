"""Whole pages travel, in place, however they are divided and whatever lies in them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.cache.host_tier import HostTier
from engine.cache.page_copies import PageCopies
from engine.cache.page_key import PageKey
from models.layers.attention import KVCache
from models.sharding import make_mesh

LAYERS, PAGES, HEADS, SLOTS, WIDTH = 3, 40, 4, 16, 8


def make_cache(kind):
    rng = np.random.default_rng(0)
    shape = (LAYERS * PAGES, HEADS, SLOTS, WIDTH)
    k, v = rng.normal(size=(2, *shape)).astype(np.float32)
    if kind == "latents":
        return KVCache(k, None, index_keys=v[..., :5])
    if kind == "eight bits":
        scales = rng.normal(size=(2, *shape[:3])).astype(np.float32)
        return KVCache((k * 50).astype(np.int8), v.astype(jnp.float8_e4m3fn), *scales)
    return KVCache(k, v)


def by_page(cache):
    """[L P ...] in bytes, as NumPy would compare them."""
    arrays = [np.asarray(array) for array in jax.tree.leaves(cache)]
    return [each.reshape(LAYERS, PAGES, -1).view(np.uint8).copy() for each in arrays]


@pytest.fixture(params=[(kind, n) for kind in ("floats", "latents", "eight bits") for n in (1, 2)])
def copies(request):
    kind, devices = request.param
    if len(jax.devices()) < devices:
        pytest.skip(f"needs {devices} devices")
    mesh, tier = make_mesh(devices), HostTier(30)
    heads = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "tensor"))
    cache = jax.device_put(make_cache(kind), heads)
    made = PageCopies(tier, cache, LAYERS, mesh)
    made.warm_up()
    return made, tier, cache


def make_all(copies, cache):
    while copies.due:
        cache = copies.make_first(cache)
    return cache


def test_pages_go_and_come_back_elsewhere(copies):
    copies, tier, cache = copies
    before = by_page(cache)
    pages = list(range(1, 20))
    keys = [PageKey(bytes([page]), b"", b"") for page in pages]
    for key, page in zip(keys, pages, strict=True):
        tier.store(key, page)
    cache = make_all(copies, cache)
    cache = jax.tree.map(jnp.zeros_like, cache)
    for key, page in zip(keys[:11], range(39, 0, -1), strict=False):
        tier.fetch(tier.find(key), page)
    tier.store(PageKey(b"new", b"", b""), 39)
    tier.fetch(tier.find(PageKey(b"new", b"", b"")), 2)
    after = by_page(make_all(copies, cache))
    for old, new in zip(before, after, strict=True):
        want = np.zeros_like(old)
        want[:, 39:28:-1] = old[:, 1:12]
        want[:, 2] = old[:, 1]
        np.testing.assert_array_equal(new, want)
    assert (copies.stored_pages, copies.fetched_pages) == (20, 12)


def test_the_pool_is_neither_copied_nor_gathered(copies):
    copies, _, cache = copies
    size = sum(array.nbytes for array in jax.tree.leaves(cache)) // cache.k.sharding.mesh.size
    memory = copies._put.memory_analysis()
    assert memory.alias_size_in_bytes >= size
    assert memory.temp_size_in_bytes + copies._take.memory_analysis().temp_size_in_bytes < size / 2
    for program in (copies._put, copies._take):
        assert not re.search("all-(gather|reduce|to-all)|collective", program.as_text())


def test_what_was_dropped_before_it_travelled_stays(copies):
    copies, tier, cache = copies
    for number in range(40):
        tier.store(PageKey(bytes([number]), b"", b""), 1)
    make_all(copies, cache)
    assert copies.stored_pages == 30


class Slow:
    """Copies that are under way for ever; whoever waits for them fails."""

    def is_ready(self):
        return False

    def block_until_ready(self):
        raise AssertionError("the loop waits for a copy")


def test_what_would_have_to_wait_for_the_host_is_dropped(copies):
    copies, tier, cache = copies
    before = by_page(cache)
    copies._storing.extend([Slow()] * 6)
    keys = [PageKey(bytes([number]), b"", b"") for number in range(25)]
    for number, key in enumerate(keys):
        tier.store(key, 1 + number)
    tier.fetch(tier.find(keys[0]), 30)  # comes back in the same step: it cannot be dropped
    copies.drop_excess()
    after = by_page(make_all(copies, cache))
    kept = [number for number, key in enumerate(keys) if tier.find(key)]
    assert kept == [0, *range(10, 25)] and copies.stored_pages == 16
    assert all(tier.find(keys[number]).content is not None for number in kept)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new[:, 30], old[:, 1])


def test_batches_that_are_small_do_not_wait_either(copies):
    copies, tier, cache = copies
    copies._storing.extend([Slow()] * 7)
    keys = [PageKey(bytes([number]), b"", b"") for number in range(6)]
    tier.store(keys[5], 20)
    make_all(copies, cache)
    copies._storing.clear()
    copies._storing.extend([Slow()] * 7)
    for number in range(4):  # each is a batch of its own
        tier.store(keys[number], 1 + number)
        tier.fetch(tier.find(keys[5]), 30 + number)
    copies.drop_excess()
    make_all(copies, cache)
    assert [number for number in range(4) if tier.find(keys[number])] == [0]


def test_how_many_pages_can_come_back_now(copies):
    copies, tier, _ = copies
    assert tier.room() == 64
    copies._fetching.extend([Slow()] * 5)
    assert tier.room() == 24
    tier.store(PageKey(b"a", b"", b""), 1)
    for page in range(9):
        tier.fetch(tier.find(PageKey(b"a", b"", b"")), 2 + page)
    assert tier.room() == 8
    tier.copies.clear()
    copies._fetching.extend([Slow()] * 5)
    assert tier.room() == 0


def test_memory_that_cannot_be_pinned_is_an_error(copies, monkeypatch):
    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no\nmore")

    copies, _, _ = copies
    copies._reserve()
    monkeypatch.setattr(jax, "device_put", full)
    with pytest.raises(Exception, match=r"cannot be pinned .* \(RESOURCE_EXHAUSTED: no\)"):
        copies._reserve()
