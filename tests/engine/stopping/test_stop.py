"""The automaton against cutting the whole text at the first stop string."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.stopping.stop import Found, StopStrings, StopWatcher

untimed = settings(deadline=None, derandomize=True)
_TEXT = st.text("ab", max_size=40)
_STOPS = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=5)


def _naive(text, stops, include):
    """(text, stop): the occurrence that ends first, of those the longest; stop None if none."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            stop = max(ending, key=len)
            return text[: end if include else end - len(stop)], stop
    return text, None


def _fed(pieces, stops, include=False):
    watcher = StopWatcher(StopStrings(stops), include_stop=include)
    texts = []
    for piece in pieces:
        fed = watcher.feed(piece)
        if isinstance(fed, Found):
            return "".join(texts) + fed.text, fed.stop
        texts.append(fed)
    return "".join([*texts, watcher.flush()]), None


def _split(text, cuts):
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    return [text[a:b] for a, b in pairwise(places)]


@untimed
@given(text=_TEXT, stops=_STOPS, include=st.booleans(), cuts=st.lists(st.integers(0, 40)))
def test_any_split_gives_the_text_cut_at_the_first_stop(text, stops, include, cuts):
    assert _fed(_split(text, cuts), stops, include) == _naive(text, stops, include)


@untimed
@given(text=_TEXT, stops=_STOPS)
def test_no_more_is_held_back_than_could_begin_a_stop(text, stops):
    watcher = StopWatcher(StopStrings(stops))
    emitted = ""
    for end, character in enumerate(text, 1):
        fed = watcher.feed(character)
        if isinstance(fed, Found):
            return
        emitted += fed
        held = text[len(emitted) : end]
        beginnings = [stop[:length] for stop in stops for length in range(len(stop))]
        longest = max((part for part in beginnings if text[:end].endswith(part)), key=len)
        assert emitted + held == text[:end] and held == longest


@untimed
@given(early=_TEXT, late=_TEXT, stops=_STOPS)
def test_what_ends_too_early_does_not_count(early, late, stops):
    watcher = StopWatcher(StopStrings(stops))
    first = watcher.feed(early, may_stop=False)
    fed = watcher.feed(late)
    ends = [
        (end, max(matching, key=len))
        for end in range(len(early) + 1, len(early + late) + 1)
        if (matching := [stop for stop in stops if (early + late)[:end].endswith(stop)])
    ]
    if not ends:
        assert first + fed + watcher.flush() == early + late
    else:
        end, stop = ends[0]
        assert isinstance(fed, Found) and fed.stop == stop
        assert first + fed.text == (early + late)[: max(end - len(stop), len(first))]


@pytest.mark.parametrize(
    ("stops", "text", "expected"),
    [
        (["\n\n"], "a\nb\n\nc", ("a\nb", "\n\n")),
        (["abc", "b"], "xabc", ("xa", "b")),  # ends first
        (["b", "ab"], "xab", ("x", "ab")),  # end together: the longest
        (["stop"], "sto", ("sto", None)),
        (["😀"], "a😀b", ("a", "😀")),
    ],
)
def test_examples(stops, text, expected):
    assert _fed(list(text), stops) == expected
