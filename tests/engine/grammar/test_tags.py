"""Structural tags, in both notations, with text and with special tokens."""

import pytest

from engine.errors import RequestError
from engine.grammar.matcher import Constraint, compile_grammar
from tests.engine.grammar.conftest import allowed

CALL = {
    "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
    "additionalProperties": False,
}  # fmt: skip
NUMBER = {"begin": "[A", "content": {"type": "regex", "pattern": "[0-9/]"}, "end": ["]", "}"]}
ANY = {"type": "tag", "begin": "[B", "content": {"type": "any_text"}, "end": "]"}


def test_the_older_notation(source, accepts):
    tag = source(
        structural_tag={
            "structures": [
                {"begin": "<f=a>", "schema": CALL, "end": "</f>"},
                {"begin": "<f=b>", "schema": {"type": "null"}, "end": "</f>"},
            ],
            "triggers": ["<f="],
        }
    )
    for text in ("free <f text", 'so: <f=a>{"a": 1}</f>, or <f=b>null</f>'):
        assert accepts(tag, text) == "whole"
    for text in ("<f=", 'x<f=a>{"a": 1}'):
        assert accepts(tag, text) == "beginning"
    for text in ("<f=c", '<f=a>{"b"', "<f=b>{"):
        assert accepts(tag, text) == "no"


@pytest.mark.parametrize(
    ("options", "wholes", "others"),
    [
        ({}, ["", "x", "x[A1]y[Bfoo]z", "[A/}"], ["[C", "[A1", "x[Ax"]),
        ({"at_least_one": True}, ["[A1]", "[A1]x[B]"], ["", "x[A1]"]),
        ({"stop_after_first": True}, ["", "x", "x[A1]"], ["[A1]x"]),
        ({"at_least_one": True, "stop_after_first": True}, ["[A1]"], ["", "x[A1]", "[A1]x"]),
    ],
)
def test_triggered_tags(source, accepts, options, wholes, others):
    tag = {"type": "triggered_tags", "triggers": ["["], "tags": [NUMBER, ANY], **options}
    made = source(structural_tag={"type": "structural_tag", "format": tag})
    assert [accepts(made, text) for text in wholes] == ["whole"] * len(wholes)
    assert "whole" not in [accepts(made, text) for text in others]


def test_formats_within_formats(source, accepts):
    thought = {"type": "tag", "begin": "<t>", "content": {"type": "any_text"}, "end": "</t>"}
    either = {
        "type": "or",
        "elements": [
            {"type": "json_schema", "json_schema": CALL},
            {"type": "grammar", "grammar": 'root ::= "x" [0-9]+'},
            {"type": "const_string", "value": "none"},
        ],
    }
    made = source(structural_tag={"format": {"type": "sequence", "elements": [thought, either]}})
    for answer in ('{"a": 1}', "x12", "none"):
        assert accepts(made, "<t>well < then</t>" + answer) == "whole"
    assert accepts(made, "<t>well") == "beginning"
    assert accepts(made, "<t>well</t>y") == accepts(made, "none") == "no"
    several = {"type": "tags_with_separator", "tags": [NUMBER, ANY], "separator": ", "}
    made = source(structural_tag={"format": several})
    assert accepts(made, "[A1], [B x]") == accepts(made, "") == "whole"
    assert accepts(made, "[A1],") == "beginning"


def test_names_of_special_tokens_are_the_tokens(source, vocabulary, tokenizer):
    """Id 1 is <|im_start|>; its letters are no trigger, and free text cannot hold the token."""
    call = {
        "begin": "<|im_start|>call:", "content": {"type": "regex", "pattern": "[xy]"},
        "end": "<|im_start|>",
    }  # fmt: skip
    tag = {"type": "triggered_tags", "triggers": ["<|im_start|>"], "tags": [call]}
    made = source(structural_tag={"format": tag})
    constraint = Constraint(vocabulary, compile_grammar(vocabulary, made))
    assert constraint.begin() == [] and 1 in allowed(constraint)
    forced = constraint.advance(1)
    assert tokenizer.decode(forced, skip_special_tokens=False) == "call:"
    x = tokenizer.encode("x", add_special_tokens=False)
    assert x[0] in allowed(constraint) and 1 not in allowed(constraint)
    assert constraint.advance(x[0]) == [1]
    letters = Constraint(vocabulary, compile_grammar(vocabulary, made))
    letters.begin()
    for token in tokenizer.encode(tokenizer.guard.marked("<|im_start|>"), False, marked=True):
        letters.advance(token)
    assert len(allowed(letters)) > 1000


@pytest.mark.parametrize(
    ("tag", "says"),
    [
        ({}, "structures"),
        ("{", "not valid JSON"),
        ("1", "an object"),
        ({"format": 1}, "format must be"),
        ({"format": {"type": "foo"}}, "foo"),
        ({"format": {"type": "tag"}}, "begin must be"),
        ({"format": {"type": "triggered_tags", "triggers": [], "tags": [ANY]}}, "triggers"),
        ({"format": {"type": "triggered_tags", "triggers": ["x"], "tags": [ANY]}}, "no trigger"),
        ({"format": {"type": "triggered_tags", "triggers": ["x"], "tags": [1]}}, "tags must be"),
        ({"format": {**ANY, "end": [1]}}, "end must be"),
        ({"structures": [{"begin": 1}], "triggers": ["a"]}, "begin must be"),
        ({"structures": [], "triggers": ["a"]}, "tags must be"),
    ],
)
def test_malformed_tags_are_refused(source, tag, says):
    with pytest.raises(RequestError, match=says):
        source(structural_tag=tag)


def test_too_many_parts_are_refused(source):
    nested: dict = {"type": "any_text"}
    for _ in range(60):
        nested = {"type": "sequence", "elements": [nested]}
    several = [{"type": "regex", "pattern": f"a{number}"} for number in range(10_100)]
    for elements in (several, several[:1] * 50_100):
        assert source(structural_tag={"format": {"type": "or", "elements": elements[:1500]}})
    for wrong in (
        nested,
        *({"type": "or", "elements": e} for e in (several, several[:1] * 50_100)),
    ):
        with pytest.raises(RequestError, match="too many parts"):
            source(structural_tag={"format": wrong})
