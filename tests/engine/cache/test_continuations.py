"""The longest beginning among pages that follow the same one, against looking at all of them."""

from hypothesis import given
from hypothesis import strategies as st

from engine.cache.continuations import Continuations
from engine.cache.page_key import as_bytes

TOKENS = st.lists(st.integers(0, 2), max_size=6)


def common(a, b):
    pairs = list(zip(a, b, strict=False))
    return next((i for i, (x, y) in enumerate(pairs) if x != y), len(pairs))


@given(
    held=st.lists(st.tuples(st.integers(1, 9), st.sampled_from([b"a", b"b"]), TOKENS), max_size=12),
    removed=st.sets(st.integers(1, 9), max_size=4),
    limits=st.dictionaries(st.integers(1, 9), st.integers(0, 3)),
    asked=TOKENS,
)
def test_the_longest_is_found(held, removed, limits, asked):
    index, model = Continuations(), {}
    for page, before, tokens in held:
        index.add(page, before, as_bytes(tokens))
        model[page] = (before, tokens)
    for page in removed:
        index.remove(page)
        model.pop(page, None)
    counts = {
        page: min(common(tokens, asked), limits.get(page, 99))
        for page, (before, tokens) in model.items()
        if before == b"a"
    }
    page, count = index.longest(b"a", as_bytes(asked), limits)
    assert count == max(counts.values(), default=0)
    assert page == 0 if not count else counts[page] == count
    assert sorted(index.pages()) == sorted(model)
    for known, (_, tokens) in model.items():
        assert known in index and index.length(known) == len(tokens)
