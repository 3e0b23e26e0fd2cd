"""Options from outside: either plain and within bounds, or a RequestError that names the field."""

import subprocess
import sys

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.sampling.params import (
    MAX_BAD_WORDS,
    MAX_LOGIT_BIAS,
    MAX_LOGPROBS,
    MAX_N,
    MAX_STOP_STRING_CHARS,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKEN_IDS,
    SamplingParams,
)

FIELDS = SamplingParams.__struct_fields__
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 3)
    | st.sampled_from([2**64, 2**31])
    | st.integers(1, 5000).map(lambda digits: -(10**digits))
    | st.floats()
    | st.floats(-2, 2)
    | st.text(st.characters(), max_size=3)
    | st.sampled_from(["\ud800", b"x", 1j, object(), np.float64(0.5), np.int64(3), np.nan, int])
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(scalars.filter(lambda x: x is not None), inner, max_size=3)
        | st.sets(st.integers(), max_size=2)
    ),
    max_leaves=4,
)


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(FIELDS), anything, min_size=1, max_size=2))
def test_any_value_is_accepted_whole_or_refused_by_name(options) -> None:
    try:
        params = SamplingParams(**options)
        params.check_vocabulary(100)
    except RequestError as error:
        assert error.param in FIELDS
        assert len(str(error)) < 250
        assert "\n" not in str(error)
    else:
        assert msgspec.json.decode(msgspec.json.encode(params), type=SamplingParams) == params
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(params), type=SamplingParams) == params


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 0), ("n", MAX_N + 1), ("n", True), ("n", 1.0), ("n", None), ("n", "2"),
        ("temperature", -0.1), ("temperature", 101), ("temperature", float("nan")),
        ("temperature", True), ("temperature", "1"), ("temperature", None),
        ("temperature", 10**400),
        ("top_p", 0), ("top_p", 1.01), ("top_k", -2), ("top_k", 2**31), ("top_k", 1.5),
        ("min_p", -0.1), ("min_p", 1.1),
        ("presence_penalty", 2.1), ("frequency_penalty", -2.1),
        ("repetition_penalty", 0), ("repetition_penalty", float("inf")),
        ("seed", 2**64), ("seed", -(2**63) - 1), ("seed", 1.0),
        ("max_tokens", 0), ("min_tokens", -1), ("min_tokens", None),
        ("logprobs", -1), ("logprobs", MAX_LOGPROBS + 1), ("prompt_logprobs", MAX_LOGPROBS + 1),
        ("stop", 5), ("stop", ""), ("stop", [""]), ("stop", [1]), ("stop", "\ud800"),
        ("stop", ["x"] * (MAX_STOP_STRINGS + 1)), ("stop", "x" * (MAX_STOP_STRING_CHARS + 1)),
        ("stop_token_ids", "x"), ("stop_token_ids", 5), ("stop_token_ids", [True]),
        ("stop_token_ids", [1] * (MAX_STOP_TOKEN_IDS + 1)),
        ("bad_words", "x"), ("bad_words", [5]), ("bad_words", ["x"] * (MAX_BAD_WORDS + 1)),
        ("logit_bias", {"a": 1}), ("logit_bias", {1: "x"}), ("logit_bias", {1: 101}),
        ("logit_bias", [1]), ("logit_bias", {True: 1.0}),
        ("logit_bias", dict.fromkeys(range(MAX_LOGIT_BIAS + 1), 0.0)),
        ("allowed_token_ids", []), ("allowed_token_ids", [0.5]), ("allowed_token_ids", "1"),
        ("ignore_eos", 1), ("detokenize", None), ("skip_special_tokens", "yes"),
        ("include_stop_str_in_output", 0),
    ],
)  # fmt: skip
def test_values_out_of_bounds_are_refused_by_name(name, value) -> None:
    with pytest.raises(RequestError, match=f"^{name} ") as error:
        SamplingParams(**{name: value})
    assert error.value.param == name


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("temperature", np.float64(0.5), 0.5),
        ("temperature", 1, 1.0),
        ("top_k", np.int32(5), 5),
        ("stop_token_ids", (1, np.int64(2)), [1, 2]),
        ("logit_bias", {np.int64(3): 1}, {3: 1.0}),
        ("stop", "end", "end"),
        ("stop", ("a", "b"), ["a", "b"]),
        ("seed", 2**64 - 1, 2**64 - 1),
        ("max_tokens", None, None),
    ],
)
def test_what_notebooks_pass_becomes_plain_values(name, value, kept) -> None:
    found = getattr(SamplingParams(**{name: value}), name)
    assert found == kept
    assert type(found) is type(kept)


def test_the_callers_lists_are_copied() -> None:
    ids = [1, 2]
    params = SamplingParams(stop_token_ids=ids)
    ids.append(2**40)
    assert params.stop_token_ids == [1, 2]


def test_min_tokens_may_not_exceed_max_tokens() -> None:
    with pytest.raises(RequestError, match="min_tokens 5 exceeds max_tokens 4"):
        SamplingParams(min_tokens=5, max_tokens=4)


@pytest.mark.parametrize(
    "options",
    [{"stop_token_ids": [50]}, {"allowed_token_ids": [3, -1]}, {"logit_bias": {10**30: 1.0}}],
)
def test_ids_outside_the_vocabulary_are_refused_by_name(options) -> None:
    params = SamplingParams(**options)
    with pytest.raises(RequestError, match="no token id of this model") as error:
        params.check_vocabulary(50)
    assert error.value.param == next(iter(options))


def test_decoding_reports_the_field_too() -> None:
    with pytest.raises(RequestError, match="top_p must be between 0 and 1"):
        msgspec.json.decode(b'{"top_p": 7}', type=SamplingParams)


def test_no_jax_is_imported() -> None:
    code = "import sys, engine.sampling.params; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_as_many_logprobs_as_named_tokens():
    """vLLM wants the number; it may be more than the likeliest there can be."""
    ids = list(range(MAX_LOGPROBS + 1))
    assert SamplingParams(logprob_token_ids=ids, logprobs=len(ids)) == SamplingParams(
        logprob_token_ids=ids
    )
