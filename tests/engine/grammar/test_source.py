"""Schemas, regexes, choices and grammars: which texts satisfy them, and what is refused."""

import json

import pytest

from engine.errors import RequestError
from engine.grammar.matcher import check_grammar, compile_grammar

POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"enum": ["a", "b"]}},
    "required": ["x", "y"],
}


def test_json_is_written_with_little_white_space(source, accepts):
    closed = source(json={**POINT, "additionalProperties": False})
    for text in ('{"x":1,"y":"a"}', '{"x": 1, "y": "a"}', '{\n    "x": 1,\n    "y": "b"\n}'):
        assert accepts(closed, text) == "whole"
    assert accepts(closed, '{"x": 1') == "beginning"
    for text in ('{  "x": 1', '{\n\n"x"', '{"x": 1, "y": "a", "z"', ' {"x"', '{"x": 1, "y": "c'):
        assert accepts(closed, text) == "no"


def test_options_of_json(source, accepts):
    compact = source(json=POINT, disable_any_whitespace=True, disable_additional_properties=True)
    assert accepts(compact, '{"x":1,"y":"a"}') == "whole"
    assert accepts(compact, '{"x": 1') == accepts(compact, '{"x":1,"y":"a","z"') == "no"
    wide = source(json=json.dumps(POINT), whitespace_pattern=r" {0,4}")
    assert accepts(wide, '{    "x":1') == "beginning" and accepts(wide, '{\n"x"') == "no"
    inner = {"type": "array", "items": {"anyOf": [POINT, {"const": {"type": "object"}}]}}
    closed = source(json=inner, disable_additional_properties=True)
    assert accepts(closed, '[{"x":1,"y":"a","z"') == "no"
    assert accepts(closed, '[{"type":"object"}]') == "whole"
    assert accepts(source(json_object=True), '{"a": [1, {"b": null}]}') == "whole"
    assert accepts(source(json_object=True), "[1]") == "no"


def test_properties_that_are_not_named(source, accepts):
    """Written where the schema allows them, and where another part of it may name them."""
    more, less = '{"x":1,"y":"a","z":[1]}', '{"x":1,"y":"a"}'
    assert accepts(source(json=POINT), more) == "no"
    assert accepts(source(json={**POINT, "additionalProperties": True}), more) == "whole"
    assert accepts(source(json={"type": "object"}), more) == "whole"
    whole = {"allOf": [POINT, {"properties": {"z": {"type": "array"}}}]}
    assert accepts(source(json=whole), more) == "whole"
    beside = {**POINT, "anyOf": [{"required": ["z"], "properties": {"z": {}}}]}
    assert accepts(source(json=beside), more) == "whole"
    base = {"$defs": {"p": POINT}, "$ref": "#/$defs/p", "properties": {"z": {}}}
    assert accepts(source(json=base), more) == "whole"
    nullable = {"anyOf": [{"$ref": "#/$defs/p"}, {"type": "null"}], "$defs": {"p": POINT}}
    assert accepts(source(json=nullable), more) == "no"
    assert accepts(source(json=nullable), less) == "whole"
    unnamed = {**POINT, "required": ["x", "y", "z"]}
    assert accepts(source(json=unnamed), more) == "whole"


def test_regexes_and_choices_are_whole_texts(source, accepts):
    number = source(regex=r"[0-9]{2}-\d+")
    assert [accepts(number, t) for t in ("12-3", "12-", "1-2")] == ["whole", "beginning", "no"]
    assert accepts(source(regex="^a|b$"), "b") == "whole"
    odd = ['a"b\\', "é\n", "日本 😀", "a", "ab", "/", "\x01"]
    chosen = source(choice=odd)
    assert [accepts(chosen, text) for text in odd] == ["whole"] * len(odd)
    assert accepts(chosen, "abc") == accepts(chosen, "c") == "no"


def test_lark_is_taken_as_it_is(source, accepts):
    lark = source(grammar='start: "a" WORD\nWORD: /[b-d]+/')
    assert [accepts(lark, t) for t in ("abcd", "a", "b")] == ["whole", "beginning", "no"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"json": {"type": "object", "properties": {"a": {"not": {}}}}}, '"not"'),
        ({"json": {"type": "array", "uniqueItems": True}}, '"uniqueItems"'),
        ({"json": {"not": {}, "x-guidance": {"lenient": True}}}, '"not"'),
        ({"json": {"type": "string", "format": "zip"}}, "zip"),
        ({"json": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}, "oneOf.*anyOf"),
        ({"json": {"type": "bogus"}}, "bogus"),
        ({"json": {"type": "string", "pattern": "("}}, "unclosed"),
        ({"json": {"type": "object", "minProperties": 3, "required": ["a"]}}, "minProperties"),
        ({"json": {"$ref": "http://127.0.0.1/x"}}, "retriev"),
        ({"json": {"$ref": "file:///etc/passwd"}}, "retriev"),
        ({"json": {"$ref": "#"}}, "no text"),
        ({"json": {"items": {"$ref": "#/$defs/a", "$id": "x"}, "$defs": {"a": {}}}}, "beside"),
        (
            {"json": {"$schema": "http://json-schema.org/draft-03/schema#", "disallow": "null"}},
            r"\$schema",
        ),
        ({"json": '{"type":'}, "not valid JSON"),
        ({"json": "[1]"}, "must be an object"),
        ({"json": {"a": float("nan")}}, "no JSON"),
        ({"json": {"enum": ["x" * 100] * 6000}}, "characters"),
        ({"regex": "("}, "unclosed"),
        ({"regex": r"a\b"}, "not supported"),
        ({"regex": "(" * 30_000 + "a" + ")" * 30_000}, "regex"),
        ({"regex": "(?=a)b"}, "look"),
        ({"grammar": " "}, "empty"),
        ({"grammar": "start: foo"}, "foo"),
        ({"grammar": 'main ::= "a"'}, "no rule root"),
        ({"structural_tag": {}}, "structures"),
    ],
)
def test_what_cannot_be_kept_to_is_refused(source, vocabulary, options, says):
    with pytest.raises(RequestError, match=says):
        check_grammar(vocabulary, source(**options))


def test_deep_and_long_schemas_are_refused_or_compiled_but_do_no_harm(source, vocabulary):
    deep: dict = {"type": "string"}
    for _ in range(900):
        deep = {"type": "array", "items": deep}
    for schema in (deep, {"type": "array", "minItems": 10**9}, {"enum": list(range(20_000))}):
        try:
            check_grammar(vocabulary, source(json=schema))
        except RequestError as error:
            assert len(str(error)) < 500


def test_what_is_accepted_is_valid(shared_data, source, vocabulary, tokenizer):
    """The JSON Schema test suite: of the schemas that compile, no invalid instance is accepted."""
    accepted = 0
    for path in sorted((shared_data / "conformance/json-schema-test-suite").glob("*/*.json")):
        for group in json.loads(path.read_text()):
            try:
                matcher = compile_grammar(vocabulary, source(json=json.dumps(group["schema"])))
            except RequestError:
                continue
            for case in group["tests"]:
                mine = matcher.deep_copy()
                text = json.dumps(case["data"], ensure_ascii=False)
                ids = tokenizer.encode(text, add_special_tokens=False)
                whole = mine.try_consume_tokens(ids) == len(ids) and mine.is_accepting()
                assert case["valid"] or not whole, (path, group["description"], case)
                accepted += whole
    assert accepted > 500
