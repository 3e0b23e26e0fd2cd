"""Keys name whole beginnings; what is found is equal to what was asked for."""

from hypothesis import given
from hypothesis import strategies as st

from engine.block_pool import BlockPool
from engine.page_key import PageKey, extend_keys
from engine.prefix_cache import PrefixCache

TOKENS = st.lists(st.integers(0, 3), max_size=24)


def keys_of(tokens, namespace="", size=4):
    keys = []
    extend_keys(keys, tokens, size, namespace)
    return keys


def common(a, b):
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count


@given(first=TOKENS, second=TOKENS)
def test_the_match_is_the_common_beginning_in_whole_pages(first, second):
    pool = BlockPool(30)
    cache = PrefixCache(pool)
    keys = keys_of(first)
    pages = pool.allocate(len(keys))
    for key, page in zip(keys, pages, strict=True):
        cache.insert(key, page)
    assert cache.match(keys_of(second)) == pages[: common(first, second) // 4]


@given(tokens=TOKENS, cut=st.integers(0, 24))
def test_keys_can_be_made_piece_by_piece(tokens, cut):
    keys = keys_of(tokens[:cut])
    extend_keys(keys, tokens, 4, "")
    assert keys == keys_of(tokens)


def test_namespaces_have_other_keys():
    assert keys_of([1] * 4) != keys_of([1] * 4, "a")


def test_equal_digests_of_other_tokens_are_no_match():
    pool = BlockPool(3)
    cache = PrefixCache(pool)
    (key,) = keys_of([1] * 4)
    cache.insert(key, pool.allocate(1)[0])
    assert cache.match([PageKey(key.digest, b"others", b"")]) == []


def test_a_reused_page_is_forgotten():
    pool = BlockPool(2)
    cache = PrefixCache(pool)
    (key,) = keys_of([1] * 4)
    pages = pool.allocate(1)
    cache.insert(key, pages[0])
    pool.release(pages)
    assert cache.match([key]) == pages
    pool.allocate(1)
    assert cache.match([key]) == [] and len(cache) == 0


def test_a_cleared_cache_holds_nothing_and_frees_its_pages():
    pool = BlockPool(4)
    cache = PrefixCache(pool)
    pages = pool.allocate(2)
    for key, page in zip(keys_of([1] * 8), pages, strict=True):
        cache.insert(key, page)
    pool.release(pages)
    cache.clear()
    assert cache.match(keys_of([1] * 8)) == [] and pool.num_idle == 0 and pool.num_free == 3
