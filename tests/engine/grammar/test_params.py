"""What may be demanded, and what is refused by name."""

import pytest

from engine import SamplingParams, StructuredOutputsParams
from engine.errors import RequestError


def test_the_constraint_is_the_field_that_is_set():
    assert StructuredOutputsParams(regex="a").constraint == "regex"
    assert StructuredOutputsParams(json_object=True).constraint == "json_object"
    assert StructuredOutputsParams(choice=("a", "b")).choice == ["a", "b"]
    params = SamplingParams(structured_outputs={"json": {"type": "null"}})
    assert params.structured_outputs == StructuredOutputsParams(json={"type": "null"})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "exactly one"),
        ({"json_object": False}, "exactly one"),
        ({"regex": "a", "grammar": "b"}, "regex and grammar"),
        ({"regex": 5}, "regex must"),
        ({"json": 5}, "json must"),
        ({"json_object": 1}, "json_object must"),
        ({"choice": []}, "choice must hold"),
        ({"choice": ["a"] * 10_001}, "choice must hold"),
        ({"choice": ["a" * 2**19, "b"]}, "choice may hold"),
        ({"choice": [5]}, "choice must"),
        ({"choice": "yes"}, "choice must"),
        ({"regex": "a" * (2**19 + 1)}, "regex has"),
        ({"regex": "\ud800"}, "surrogate"),
        ({"regex": "a", "whitespace_pattern": " "}, "whitespace_pattern is for JSON"),
        ({"choice": ["a"], "disable_any_whitespace": True}, "disable_any_whitespace is for JSON"),
        ({"json": {}, "whitespace_pattern": " ", "disable_any_whitespace": True}, "exclude"),
    ],
)
def test_what_is_malformed_is_named(options, says):
    with pytest.raises(RequestError, match=says) as caught:
        StructuredOutputsParams(**options)
    if set(options) - {"regex", "json", "json_object", "choice"}:
        assert caught.value.param == "structured_outputs"


def test_sampling_params_take_nothing_that_goes_against_it():
    for wrong in (5, {"jsn": {}}, "x"):
        with pytest.raises(RequestError) as caught:
            SamplingParams(structured_outputs=wrong)
        assert caught.value.param == "structured_outputs"
    with pytest.raises(RequestError, match="exclude") as caught:
        SamplingParams(structured_outputs={"regex": "a"}, allowed_token_ids=[1])
    assert caught.value.param == "allowed_token_ids"
