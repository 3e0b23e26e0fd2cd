"""Calls whose arguments are no JSON object: what random choices write is read as valid ones."""

import json
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from engine.errors import RequestError
from engine.grammar.matcher import Constraint, Vocabulary, compile_grammar, make_vocabulary
from engine.grammar.params import StructuredOutputsParams
from engine.grammar.source import grammar_source
from engine.tokenizers.tokenizer import Tokenizer
from models.demo import DEMO_FOLDER
from serve.reply.bound import BindsCalls, Wish
from serve.reply.registry import tool_format
from serve.reply.reply import ReplyParser
from tests.engine.grammar.conftest import EOS, allowed
from tests.serve.reply.replies import summary

BEGINS = {
    "pythonic": "\n[",
    "lfm2": "So <|tool_call_start|>[",
    "olmo3": "So <function_calls>\n",
    "gemma3": "So ```tool_code\n",
    "gemma4": "So <|tool_call>call:",
    "functiongemma": "So <start_function_call>call:",
}
BRACED = ("gemma4", "functiongemma")  # {a:1} and not (a=1)
CLOSERS = ["<escape>", '"', ")", "]", "}", ",", "\n", "```", "</", "<|", "\\", "e"]
VALUES = (
    {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": ["boolean", "null"]}, {},
    {"anyOf": [{"type": "number"}, {"type": "null"}], "title": "Maybe"},
    {"type": "array", "items": {"type": ["string", "null", "boolean"]}, "maxItems": 3},
    {"enum": ["a)", None, True, 1.5, ["x", {"b": False}]]}, {"$ref": "#/$defs/Tree"},
    {"type": "string", "pattern": "^[(,\\\\\"']{1,3}$"}, {"$ref": "#/properties/x"},
    {"enum": ["a, b", "}"]}, {"type": "array", "items": {"type": "string"}},
    {
        "type": "object", "required": ["a"], "additionalProperties": False,
        "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"enum": ["x"]}}},
    },
)  # fmt: skip
TREE = {
    "type": "object", "properties": {"on": {"type": "boolean"}, "t": {"$ref": "#/$defs/Tree"}},
    "required": ["on"], "additionalProperties": False,
}  # fmt: skip
schemas = st.lists(st.tuples(st.sampled_from(VALUES), st.booleans()), max_size=4).map(
    lambda each: {
        "type": "object",
        "properties": {
            "x": {"type": "integer"},
            **{f"ä{number}": value for number, (value, _) in enumerate(each)},
        },
        "required": [f"ä{number}" for number, (_, needed) in enumerate(each) if needed],
        "$defs": {"Tree": TREE},
    }
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(DEMO_FOLDER)


@pytest.fixture(scope="module")
def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    return make_vocabulary(tokenizer, tokenizer.vocab_size, [EOS])


def walk(
    part: Any, begin: str, tokenizer: Tokenizer, vocabulary: Vocabulary, chance: random.Random
) -> str | None:
    """What random choices write behind `begin`, brackets being likely; None if it has no end."""
    source = grammar_source(StructuredOutputsParams(structural_tag={"format": part}), {})
    constraint = Constraint(vocabulary, compile_grammar(vocabulary, source))
    ids, text = list(constraint.begin()), ""
    likely = [tokenizer.encode(text, add_special_tokens=False)[0] for text in CLOSERS]
    for _ in range(250):
        text = tokenizer.decode(ids, skip_special_tokens=False)
        if constraint.finished:
            return text
        tokens = allowed(constraint)
        fitting = [token for token in likely if token in tokens]
        token = chance.choice(fitting if fitting and chance.random() < 0.5 else tokens)
        if len(text) < len(begin):
            token = tokenizer.encode(begin[len(text) :], add_special_tokens=False)[0]
        elif EOS in tokens:
            return text
        assert token in tokens, text
        ids += [token, *constraint.advance(token)]
    return None


def read(pieces: list[str], name: str, tools: Any) -> Any:
    grammar = tool_format(name, ()).grammar
    parser = ReplyParser(prompt="", calls=grammar, tools=tools, make_id=lambda name, index: name)
    return summary([event for piece in pieces for event in parser.feed(piece)] + parser.finish())


@pytest.mark.parametrize("name", sorted(BEGINS))
def test_what_random_choices_write_is_valid_calls(
    name: str, tokenizer: Tokenizer, vocabulary: Vocabulary
) -> None:
    complete = 0

    @settings(max_examples=25)
    @given(schemas, st.booleans(), st.integers(0, 2**32))
    def each(schema: Any, named: bool, seed: int) -> None:
        nonlocal complete
        chance = random.Random(seed)
        tools = {"a.b-c": schema, "free": {"type": "object"}}
        part = tool_format(name, ()).grammar.bound(Wish(tools))
        first = ("a.b-c" if named else "free") + ("{" if name in BRACED else "(")
        reply = walk(part, BEGINS[name] + first, tokenizer, vocabulary, chance)
        if reply is None:
            return
        found = read([reply], name, tools)
        assert found == read(list(reply), name, tools)
        assert found["calls"][0][0] == first[:-1], reply
        for tool, arguments in found["calls"]:
            Draft202012Validator(tools[tool]).validate(arguments)
        complete += 1

    each()
    assert complete > 5


DAY = {
    "properties": {"on": {"type": "boolean"}, "note": {"type": "string"}, "n": {"type": "null"}},
    "required": ["on"],
}


@pytest.mark.parametrize(
    ("reply", "fits"),
    [
        ("[f(on=true)]", True), ("[f(on=False)]", True), ("[f(on=True, n=None)]", True),
        ('[f(on=true, note="a, b)", n=null), f(on=true)]', True), ("\n[f(on=true)]", True),
        ("[1] says (x=2)", True), ("So [f(", True), ("[g of f", True), ("", True),
        ("[f()]", False), ("[f(n=null, on=true)]", False), ('[f(on="yes")]', False),
        ("[g(", False), ("[g of (", False), (" [ f(", False), ("[f(on=true)] So", False),
        ("[f(on=true, ", False), ("<think>", False), ("<|python_start|>[f()]", False),
    ],
)  # fmt: skip
def test_a_reply_is_calls_or_text(
    reply: str, fits: bool, tokenizer: Tokenizer, vocabulary: Vocabulary
) -> None:
    part = tool_format("pythonic", ()).grammar.bound(Wish({"f": DAY}, excludes=("<think>",)))
    source = grammar_source(StructuredOutputsParams(structural_tag={"format": part}), {})
    matcher = compile_grammar(vocabulary, source)
    ids = tokenizer.encode(reply, add_special_tokens=False)
    whole = matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()
    assert whole == fits
    if fits:
        assert bool(read([reply], "pythonic", {"f": DAY})["calls"]) == ("[f(o" in reply)


def test_an_answer_beside_calls_is_not_taken_for_one() -> None:
    grammar = tool_format("pythonic", ()).grammar
    for reply, calls in (('["f(", 1]', 0), ("[g(x)]", 0), ("\n[f(on=true)]", 1)):
        for size in (1, 99):
            parser = ReplyParser(prompt="", calls=grammar.chosen(), tools={"f": DAY})
            pieces = [reply[i : i + size] for i in range(0, len(reply), size)]
            found = summary([e for p in pieces for e in parser.feed(p)] + parser.finish())
            assert len(found["calls"]) == calls
            assert found["content"] == ("" if calls else reply)


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ('"a\\/b"', "a/b"), ('"\\ud83d\\ude00"', "😀"), ("1e400", float("inf")),
        ('{"a": [true, None]}', {"a": [True, None]}), ("NaN", "NaN"), ("'\\ud800'", "'\\ud800'"),
        ("[" * 60 + "]" * 60, json.loads("[" * 60 + "]" * 60)), ("[null, false]", [None, False]),
        ("'\\d'", "\\d"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_what_is_json_is_read_as_json(literal: str, value: Any) -> None:
    assert read([f"[f(a={literal})]"], "pythonic", {})["calls"] == [("f", {"a": value})]


@pytest.mark.parametrize(
    ("tool", "schema", "says"),
    [
        ("f", {"properties": {"a b": {}}}, "f.a b: no argument"),
        ("f", {"properties": {"a": 5}}, "f.a: its schema must be an object"),
        ("f", {"properties": {}, "required": ["x"]}, "f: required"),
        ("f", {"properties": {"a": {}}, "oneOf": []}, "f: oneOf cannot be kept to"),
        ("a/b", {"properties": {"*": {}}}, "a/b"),
    ],
)
def test_what_python_calls_cannot_keep_to_is_refused(tool: str, schema: Any, says: str) -> None:
    for name in BEGINS:
        grammar = tool_format(name, ()).grammar
        assert isinstance(grammar, BindsCalls)
        with pytest.raises(RequestError, match=says) as error:
            grammar.bound(Wish({tool: schema}))
        assert error.value.param == "tools"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"type": "object", "properties": [1]}, "properties must be an object"),
        ({"enum": "abc"}, "enum must be an array"),
        ({"type": "object", "properties": {"b": {}}, "required": 5}, "array for 'required'"),
    ],
)
def test_what_no_schema_says_within_a_parameter_is_refused(
    value: Any, says: str, vocabulary: Vocabulary
) -> None:
    """In the words of the schema's compiler, behind which its tool is named."""
    for name in BEGINS:
        grammar = tool_format(name, ()).grammar
        assert isinstance(grammar, BindsCalls)
        part = grammar.bound(Wish({"f": {"properties": {"a": value}, "required": ["a"]}}))
        source = grammar_source(StructuredOutputsParams(structural_tag={"format": part}), {})
        with pytest.raises(RequestError, match=says):
            compile_grammar(vocabulary, source)


def test_alternatives_as_deep_as_a_body_may_be() -> None:
    value: dict[str, Any] = {"type": "null"}
    for _ in range(600):
        value = {"anyOf": [value]}
    grammar = tool_format("pythonic", ()).grammar
    assert isinstance(grammar, BindsCalls)
    with suppress(RequestError):
        assert grammar.bound(Wish({"f": {"properties": {"a": value}}}))
