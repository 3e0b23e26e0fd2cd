"""Pages are copied in place, however they are divided and whatever lies in them."""

import jax
import numpy as np
import pytest

from engine.cache.page_forks import PageForks
from models.sharding import make_mesh
from tests.engine.cache.test_page_copies import LAYERS, by_page, make_cache


@pytest.fixture(params=[(kind, n) for kind in ("floats", "latents", "eight bits") for n in (1, 2)])
def forks(request):
    kind, devices = request.param
    if len(jax.devices()) < devices:
        pytest.skip(f"needs {devices} devices")
    mesh = make_mesh(devices)
    heads = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "tensor"))
    cache = jax.device_put(make_cache(kind), heads)
    made = PageForks(cache, LAYERS, mesh)
    made.warm_up()
    return made, cache


def test_each_goes_to_its_own_page(forks):
    forks, cache = forks
    before = by_page(cache)
    pairs = [(1 + number % 3, 10 + number) for number in range(11)]
    after = by_page(forks.make(cache, pairs))
    for old, new in zip(before, after, strict=True):
        want = old.copy()
        for source, target in pairs:
            want[:, target] = old[:, source]
        np.testing.assert_array_equal(new, want)


def test_the_pool_is_not_copied(forks):
    forks, cache = forks
    size = sum(array.nbytes for array in jax.tree.leaves(cache)) // cache.k.sharding.mesh.size
    memory = forks._fork.memory_analysis()
    assert memory.alias_size_in_bytes >= size
    assert memory.temp_size_in_bytes < size
    assert "all-gather" not in forks._fork.as_text()
