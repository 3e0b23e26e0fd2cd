"""Keys name whole beginnings; what is found is equal to what was asked for."""

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cache.block_pool import BlockPool
from engine.cache.page_key import PageKey, extend_keys, root
from engine.cache.prefix_cache import PrefixCache

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
    assert cache.match([key]) == []


class Text:
    """A request's pages of four equal tokens, of which it found the first in the cache."""

    def __init__(self, cache, pool, words, most):
        self.keys, self.pages, self._cache, self._pool = [], [], cache, pool
        self._tokens = [word for word in words for _ in range(4)]
        found = cache.match(keys_of(self._tokens))[:most]
        pool.share(found)
        self.pages, self.found, self.known = found, len(found), len(found)
        self.grow(len(words) - len(found))

    def grow(self, count, word=0):
        more = self._pool.allocate(count)
        self.pages += more or []
        self._tokens += [word] * 4 * (len(self.pages) - len(self._tokens) // 4)
        extend_keys(self.keys, self._tokens[: 4 * len(self.pages)], 4, "")
        self._cache.insert_chain(self.keys, self.pages, self.known, self.found)
        self.known = len(self.pages)

    def end(self):
        self._cache.release(self.keys, self.pages, self.found)


EVENTS = st.tuples(
    st.sampled_from(["begin", "grow", "end", "take"]), st.integers(0, 2), st.integers(0, 1)
)


@settings(max_examples=200)
@given(events=st.lists(EVENTS, min_size=6, max_size=20))
def test_no_page_is_kept_whose_beginning_is_gone(events):
    """Whoever computes what another computes too, in whatever order they end and pages go."""
    pool = BlockPool(6)
    cache, texts = PrefixCache(pool), []
    for event, number, word in events:
        text = texts[number % len(texts)] if texts else None
        if event == "begin" and pool.num_free >= 2:
            texts.append(Text(cache, pool, [0, word][:number], number * word))
        elif event == "grow" and text and pool.num_free:
            text.grow(1, word)
        elif event == "end" and text:
            text.end()
            texts.remove(text)
        elif event == "take":  # all but so many, for something else
            pool.release(pool.allocate(max(0, pool.num_free - number)))
        for page, key in cache._keys.items():
            assert pool.owners(page) or key.before in cache._pages or key.before == root("")


def test_a_copy_that_is_used_again_does_not_go_before_what_follows_it():
    pool = BlockPool(4)
    cache = PrefixCache(pool)
    keys = keys_of([1] * 4 + [2] * 4)
    first, second = pool.allocate(1), pool.allocate(2)
    cache.insert_chain(keys[:1], first, 0, 0)
    cache.insert_chain(keys, second, 0, 0)
    cache.release(keys[:1], first, 0)
    cache.release(keys, second, 0)
    pool.allocate(2)  # the second copy, which nobody finds, and then the end
    assert cache.match(keys) == first


def test_what_a_second_request_puts_behind_a_page_outlives_the_first_ones_copy():
    pool = BlockPool(4)
    cache = PrefixCache(pool)
    keys = keys_of([1] * 4 + [2] * 4)
    first = pool.allocate(1)
    cache.insert_chain(keys[:1], first, 0, 0)
    second = pool.allocate(2)
    cache.insert_chain(keys, second, 0, 0)
    cache.release(keys[:1], first, 0)
    assert cache.match(keys) == [first[0], second[1]]
    pool.release(pool.allocate(1))  # which is the first copy's
    assert cache.match(keys) == []
    cache.release(keys, second, 0)
    assert cache.match(keys) == second


def test_a_cleared_cache_holds_nothing_and_frees_its_pages():
    pool = BlockPool(4)
    cache = PrefixCache(pool)
    pages = pool.allocate(2)
    for key, page in zip(keys_of([1] * 8), pages, strict=True):
        cache.insert(key, page)
    pool.release(pages)
    cache.clear()
    assert cache.match(keys_of([1] * 8)) == [] and pool.num_idle == 0 and pool.num_free == 3
