"""Patterns of an adapter's file match what PEFT's do, and none takes for ever."""

import re

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from models.checkpoints.name_patterns import NamePatterns, PatternError

NAMES = (
    "model.layers.0.self_attn.q_proj", "model.layers.11.mlp.up_proj", "a.b", "b", "aab.abb", "",
)  # fmt: skip
PIECES = st.sampled_from(["a", "b", ".", r"\.", "[^a]", r"\d", "^", "$", "_proj", "layers"])
PATTERNS = st.recursive(
    PIECES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("(?:{0[0]}|{0[1]})".format),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "*?"])).map(
            "({0[0]}){0[1]}".format
        ),
    ),
    max_leaves=6,
)


def matches(pattern: str, name: str) -> bool:
    return NamePatterns({pattern: True}).of(name, False)


@settings(max_examples=100)
@given(PATTERNS)
def test_a_pattern_matches_the_names_that_it_does_in_peft(pattern):
    for name in NAMES:
        assert matches(pattern, name) == bool(re.fullmatch(rf"(.*\.)?({pattern})", name))


def test_the_first_that_matches_has_the_say():
    patterns = NamePatterns({"q_proj": 1, r"layers\.0\..*": 2, r".*": 3})
    found = [patterns.of(name, 0) for name in (*NAMES[:2], "model.layers.0.self_attn.k_proj")]
    assert found == [1, 3, 2]
    assert NamePatterns({"v_proj": 1}).of(NAMES[0], 7) == 7


@pytest.mark.parametrize(
    "pattern",
    ["(?:[a-z_.0-9]*)*!", "(((((((((.*)*)*)*)*)*)*)*)*)*!", "(?:.{1000000}){1000000}", "(.*)*" * 9],
)
def test_what_takes_for_ever_elsewhere_is_quick(pattern):
    patterns = NamePatterns({pattern: True})
    patterns.of(NAMES[0], False)
    assert patterns._steps < 10_000


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(a", "no regular expression"), (r"a{9999999999999999999}", "no regular expression"),
        ("(?i)a", "only characters"), ("(?i:a)", "only characters"), (r"\bq", "only characters"),
        (r"(a)\1", "only characters"), ("a(?!b)", "only characters"), ("a*+", "only characters"),
        ("(" * 5000 + ")" * 5000, "nested too deeply"),
    ],
)  # fmt: skip
def test_a_pattern_that_is_none_is_named(pattern, said):
    with pytest.raises(PatternError) as caught:
        NamePatterns({pattern: 1})
    assert said in str(caught.value) and repr(pattern[:60]) in str(caught.value)


def test_all_patterns_of_a_file_together_take_so_many_steps(monkeypatch):
    monkeypatch.setattr("models.checkpoints.name_patterns.MAX_STEPS", 100)
    patterns = NamePatterns({f".*{number}x": 1 for number in range(9)})
    with pytest.raises(PatternError, match=r"'\.\*\dx', which with those before it takes too long"):
        for _ in range(99):
            patterns.of(NAMES[0], 0)
