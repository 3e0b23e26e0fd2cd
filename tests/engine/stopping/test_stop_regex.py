"""The automaton of regexes against Python's `re` on the whole text."""

import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.sampling.params import MAX_STOP_REGEX_CHARS, SamplingParams
from engine.stopping.stop import Either, Found, StopStrings, StopWatcher
from engine.stopping.stop_regex import MAX_CASELESS, MAX_HELD, MAX_STATES, StopRegexes
from tests.engine.stopping.test_stop import _split, untimed

_PARTS = st.recursive(
    st.sampled_from(["a", "b", ".", "[^a]", "[a-b]", r"\w", "ab"]),
    lambda part: st.one_of(
        st.tuples(part, part).map("".join),
        st.tuples(part, part).map(lambda two: f"(?:{two[0]}|{two[1]})"),
        st.tuples(part, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "*?", "{0,3}"])).map(
            lambda two: f"({two[0]}){two[1]}"
        ),
    ),
    max_leaves=5,
)
_REGEXES = _PARTS.filter(lambda pattern: not re.fullmatch(pattern, ""))
_TEXT = st.text("ab\n", max_size=14)


def naive(text: str, patterns: list[str], include: bool = False) -> tuple[str, str | None]:
    """What is left of the text, and the pattern: the first end, and of those there the longest."""
    for end in range(1, len(text) + 1):
        for start in range(end):
            for pattern in patterns:
                if re.fullmatch(pattern, text[start:end]):
                    return text[: end if include else start], pattern
    return text, None


def fed(pieces: list[str], watcher: StopWatcher) -> tuple[str, str | None]:
    texts = []
    for piece in pieces:
        found = watcher.feed(piece)
        if isinstance(found, Found):
            return "".join(texts) + found.text, found.stop
        texts.append(found)
    return "".join([*texts, watcher.flush()]), None


@settings(untimed, max_examples=300)
@given(
    text=_TEXT, patterns=st.lists(_REGEXES, min_size=1, max_size=2), include=st.booleans(),
    cuts=st.lists(st.integers(0, 14)),
)  # fmt: skip
def test_any_split_gives_the_text_cut_at_the_first_match(text, patterns, include, cuts):
    watcher = StopWatcher(StopRegexes(patterns), include_stop=include)
    said, stop = fed(_split(text, cuts), watcher)
    expected, pattern = naive(text, patterns, include)
    assert said == expected and (stop is None) == (pattern is None)


@settings(untimed, max_examples=60)
@given(text=_TEXT, pattern=_REGEXES)
def test_what_is_held_back_could_begin_a_match_and_nothing_else_could(text, pattern):
    longer = ["".join(more) for size in range(1, 6) for more in product("ab\n", repeat=size)]

    def viable(part):
        return any(re.fullmatch(pattern, part + more) for more in longer)

    watcher, emitted = StopWatcher(StopRegexes([pattern])), ""
    for end, character in enumerate(text, 1):
        found = watcher.feed(character)
        if isinstance(found, Found):
            return
        emitted += found
        starts = [start for start in range(end) if viable(text[start:end])]
        assert len(emitted) == min(starts, default=end)


def test_strings_and_regexes_together():
    both = Either(StopStrings(["END", "x\n\n"]), StopRegexes([r"\n\n", r"N\d"]))
    assert fed(["a E", "N", "D b"], StopWatcher(both)) == ("a ", "END")
    assert fed(["a EN", "7 b"], StopWatcher(both)) == ("a E", r"N\d")
    assert fed(["ax\n", "\nb"], StopWatcher(both)) == ("a", "x\n\n")  # the longer of two
    assert fed(["a E", "N"], StopWatcher(both)) == ("a EN", None)


@pytest.mark.parametrize(
    ("pattern", "text", "left"),
    [
        (r"(?i)stop", "do not STOP", "do not "), (r"(?i:s)top", "STOP Stop", "STOP "),
        (r"\d", "è٣", "è"), (r"(?a)\d", "٣3", "٣"), (r"[^\s]\s", "\n\nab c", "\n\na"),
        (r"(?a)\d(?u:\d)", "٣3٣", "٣"),
        (r"a.b", "a\nb", "a\nb"), (r"(?s)a.b", "ca\nb", "c"), (r"(?x) a  b # more", "xab", "x"),
        (r"[\]\-^&|~]", "a]", "a"), (r"###\s*\w+:", "so ### User: hi", "so "), 
        (r"[^x]{3}", "xabc", "x"),
    ],
)  # fmt: skip
def test_patterns_are_pythons(pattern, text, left):
    assert fed(list(text), StopWatcher(StopRegexes([pattern])))[0] == left


@pytest.mark.parametrize(
    "pattern",
    ["a*", "", "(|a)", "(", "a**", "^a", "a$", r"\ba", "(?=a)b", "(?<!a)b", r"(a)\1", "(?>a)",
     "a++",      "a{99999}", "(a{99}){99}", "((((a{9}){9}){9}){9}){9}", "a{0,9999999}", 
     "()" * 9 + "{4294967294}", "(?P<x>a", "[b-a]", "(?L)a", "(?a)(?u)a",
     "(" * 250 + "a*" + ")" * 250],
)  # fmt: skip
def test_what_cannot_be_watched_for_is_refused(pattern):
    with pytest.raises(RequestError) as refused:
        StopRegexes([pattern])
    assert refused.value.param == "stop_regex" and str(refused.value).endswith(".")


def test_of_large_ranges_without_case_there_are_few():
    """Python looks at each of their characters: 0.6 s for one class of 168 such ranges."""
    ranges = "".join(f"{chr(0x100 + n)}-\uffff" for n in range(100))
    assert StopRegexes([f"(?i)(?-i:[{ranges}])x", "(?i)[^a-zа-я]x"])
    with pytest.raises(RequestError, match=rf"{MAX_CASELESS} characters .* \(\?-i:") as refused:
        StopRegexes([f"(?i)[{ranges}]"])
    assert refused.value.param == "stop_regex"


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+c",
        "(a|a)*c",
        "(a|aa)+c",
        "(?s).*.*.*x.*c",
        "a.{0,200}c",
        "(a?){200}c",
    ],
)
def test_hostile_patterns_cost_the_same_for_each_character(pattern):
    """A state is entered once for each character, however many ways lead to it."""
    stops = StopRegexes([pattern])
    matches = stops.begin
    for _ in range(2000):
        matches = stops.step(matches, "a")
        assert len(matches.states) < MAX_STATES
    assert stops.pending(matches) <= MAX_HELD


def test_of_a_long_match_the_end_is_cut():
    text = "a" * 3000 + "c"
    assert fed(list(text), StopWatcher(StopRegexes(["a+c"]))) == ("a" * (3001 - MAX_HELD), "a+c")


@pytest.mark.parametrize(
    "wanted", [5, [1], "", [""], ["a"] * 17, "a" * (MAX_STOP_REGEX_CHARS + 1), "\ud800"]
)
def test_bounds(wanted):
    with pytest.raises(RequestError) as refused:
        SamplingParams(stop_regex=wanted)
    assert refused.value.param == "stop_regex"
