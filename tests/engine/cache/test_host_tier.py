"""Pages that the device had no room to keep come back as they were, and change no token."""

import numpy as np
import pytest

from engine.cache.host_tier import HostTier
from engine.cache.page_key import PageKey, extend_keys
from engine.errors import ConfigError
from engine.sampling.params import SamplingParams
from tests.engine.conftest import VOCAB, make_core, run

FEW = {"max_num_seqs": 2, "max_num_batched_tokens": 16, "num_gpu_blocks_override": 9 + 1}


def keys_of(tokens):
    keys: list[PageKey] = []
    extend_keys(keys, tokens, 2, "")
    return keys


def shared_prefixes(seed=0, count=14):
    """Prompts of 1 to 110 tokens, most of which begin as one of three stories does."""
    rng = np.random.default_rng(seed)
    stories = rng.integers(3, VOCAB, (3, 110)).tolist()
    cuts = rng.integers(0, 100, count)
    ends = [rng.integers(3, VOCAB, rng.integers(1, 10)).tolist() for _ in range(count)]
    return [stories[i % 3][:cut] + end for i, (cut, end) in enumerate(zip(cuts, ends, strict=True))]


def ids(texts):
    return [text.ids for text in texts]


def test_a_full_tier_drops_the_end_of_what_was_wanted_least_recently():
    tier = HostTier(3)
    first, second = keys_of([1] * 6), keys_of([2] * 2)
    for key in reversed(first):  # as the device gives pages away: the end first
        tier.store(key, 1)
    tier.touch([tier.find(key) for key in first])
    tier.store(second[0], 2)
    assert [tier.find(key) is not None for key in (*first, *second)] == [True, True, False, True]
    wanted = [copy.host.wanted for copy in tier.copies]
    assert len(tier) == 3 and wanted == [False, True, True, True]


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_was_found_is_fetched_even_if_it_is_dropped(when):
    tier = HostTier(1)
    a, b = keys_of([1] * 2)[0], keys_of([2] * 2)[0]
    tier.store(a, 1)
    found = tier.find(a)
    if when == "before":
        tier.fetch(found, 3)
    tier.store(b, 2)
    if when == "after":
        tier.fetch(found, 3)
    assert tier.find(a) is None and found.wanted
    assert {(copy.page, copy.to_host) for copy in tier.copies} == {(1, True), (2, True), (3, False)}


def test_a_content_is_copied_once_and_compared_with_its_tokens():
    tier = HostTier(2)
    key = keys_of([1] * 2)[0]
    tier.store(key, 1)
    tier.store(key, 5)
    assert len(tier.copies) == 1
    assert tier.find(PageKey(key.digest, b"others", b"")) is None


@pytest.mark.parametrize("dtype", ["auto", "int8_per_token_head"])
def test_shared_prefixes_through_a_tiny_pool_give_the_text_of_no_cache(tiny_folder, dtype):
    batch, settings = shared_prefixes(), {**FEW, "kv_cache_dtype": dtype}
    plain = make_core(tiny_folder, enable_prefix_caching=False, **settings)
    want = ids(run(plain, batch, max_tokens=8))
    plain.close()
    core = make_core(tiny_folder, kv_offloading_size=0.001, **settings)
    there, back = run(core, batch, max_tokens=8), run(core, batch[::-1], max_tokens=8)
    assert ids(there) == want and ids(back) == want[::-1]
    stats = core.stats
    external = sum(text.external_tokens for text in (*there, *back))
    assert external == stats.external_prefix_cache_hits
    core.close()
    assert stats.external_prefix_cache_hits > 0 and stats.num_compiles_after_warmup == 0
    assert stats.external_prefix_cache_hits <= stats.external_prefix_cache_queries
    page = core.info.kv_cache_bytes // (core.info.num_pages + 1)
    assert stats.kv_offload_load_bytes >= stats.external_prefix_cache_hits // 16 * page
    assert stats.kv_offload_store_bytes >= page * stats.num_used_host_pages > 0
    assert stats.num_free_pages == stats.num_pages


def test_a_tier_of_three_pages_drops_pages_and_no_request(tiny_folder, core):
    batch = shared_prefixes(seed=2)
    page = core.info.kv_cache_bytes // (core.info.num_pages + 1)
    small = make_core(tiny_folder, kv_offloading_size=3.5 * page / 2**30, **FEW)
    assert ids(run(small, batch, max_tokens=8)) == ids(run(core, batch, max_tokens=8))
    assert small.stats.num_used_host_pages == small.stats.num_host_pages == 3
    small.close()


def test_a_preempted_request_goes_on_from_the_host(tiny_folder, core):
    """Three sequences of up to 110 tokens in nine pages: two cannot run to their ends together."""
    batch = [prompt[:50] for prompt in shared_prefixes(seed=5, count=40) if len(prompt) > 50][:4]
    params = SamplingParams(temperature=1.0, seed=3, max_tokens=60, ignore_eos=True)
    want, computed, preempted = ids(run(core, batch, params)), {}, {}
    for size in (None, 0.001):
        engine = make_core(tiny_folder, kv_offloading_size=size, **FEW)
        assert ids(run(engine, batch, params)) == want
        computed[size] = engine.stats.scheduled_tokens
        preempted[size] = engine.stats.num_preemptions
        assert bool(engine.stats.external_prefix_cache_queries) == (size is not None)
        engine.close()
    assert preempted[None] and preempted[0.001]
    assert computed[0.001] < computed[None]


def test_a_tier_that_cannot_be_is_an_error(tiny_folder):
    with pytest.raises(ConfigError, match=r"holds no page of 4096 bytes; use at least 0\.0001 GiB"):
        make_core(tiny_folder, kv_offloading_size=1e-9)
    with pytest.raises(ConfigError, match=r"more than the .* GiB of host memory that are free"):
        make_core(tiny_folder, kv_offloading_size=100_000.0)
