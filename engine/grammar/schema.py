"""A JSON schema as llguidance takes it, without what it would take and not keep to.

llguidance refuses keywords that it does not know how to keep to. This file owns what is left to
refuse (`minProperties`, which a repeated key would satisfy; `$id` beside `$ref`), how JSON is
written, and which properties: those that a schema names, where it names any and does not say that
there may be others. `disable_additional_properties` asks for that in schemas made of several, too.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
from llguidance import LLMatcher

from engine.errors import RequestError
from engine.grammar.params import MAX_SOURCE_CHARS, StructuredOutputsParams

# Unlimited white space, which JSON allows, is what a model that is lost writes to the end.
_WHITESPACE = r"[ \t]|\n[ \t]{0,40}"
# `disallow`, `extends` and `divisibleBy` meant something; since draft 4 they are notes
_OLD_DRAFT = re.compile(r"json-schema\.org/draft-0[0-3]/")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems", "items")
_SINGLE = ("additionalProperties", "additionalItems", "items", "not", "if", "then", "else")
_APPLIED = ("anyOf", "allOf", "oneOf", "$ref", "if", "dependentSchemas")
Schema = dict[str, Any]


def json_source(params: StructuredOutputsParams) -> str:
    """The llguidance source of `params.json` or `params.json_object`; raises `RequestError`."""
    schema = {"type": "object"} if params.json_object else read_schema(params.json)
    return schema_source(
        schema,
        closed=params.disable_additional_properties,
        whitespace=not params.disable_any_whitespace,
        pattern=params.whitespace_pattern,
    )


def schema_source(
    schema: Any, *, closed: bool = False, whitespace: bool = True, pattern: str | None = None
) -> str:
    """The llguidance source of a schema; raises `RequestError`."""
    schema = checked(schema, closed=closed)
    options: Any = {"lenient": False, "coerce_one_of": False, "whitespace_flexible": whitespace}
    if whitespace:
        options["whitespace_pattern"] = pattern or _WHITESPACE
    try:
        return LLMatcher.grammar_from_json_schema(schema, overrides=options)
    except ValueError as error:
        raise RequestError(f"the schema cannot be read: {str(error)[:200]}") from None


def read_schema(given: object) -> Any:
    """A schema from its text, or as it is; raises `RequestError`."""
    if not isinstance(given, str):
        return given
    try:
        return msgspec.json.decode(given)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the schema is not valid JSON: {error}") from None


def checked(schema: Any, *, closed: bool = False) -> Schema:
    """A copy of the schema, closed if asked for; raises `RequestError` for what is not kept to."""
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise RequestError("the schema must be an object")
    try:
        text = json.dumps(schema, allow_nan=False)
        copy: Schema = json.loads(text)
        parts = list(_parts(copy))
    except (RecursionError, TypeError, ValueError) as error:
        raise RequestError(f"the schema is no JSON, or nested too deeply ({error})") from None
    if len(text) > MAX_SOURCE_CHARS:
        raise RequestError(f"the schema has {len(text)} characters, more than {MAX_SOURCE_CHARS}")
    for part in parts:
        _check_min_properties(part)
        if _OLD_DRAFT.search(str(part.get("$schema"))):
            raise RequestError("$schema names a draft before the fourth; later ones are read")
        if "$ref" in part and "$id" in part and part is not copy:
            raise RequestError("$id beside $ref means one thing in draft 7 and another since")
    if closed or not any(map(_is_composed, parts)):
        for part in parts:
            _close(part, always=closed)
    return copy


def _parts(schema: Any) -> Iterator[Schema]:
    """The schema and all schemas in it; an enum's or a const's values are none."""
    if not isinstance(schema, dict):
        return
    yield schema
    for name in _MAPS:
        named = schema.get(name)
        for part in named.values() if isinstance(named, dict) else ():
            yield from _parts(part)
    for name in _LISTS:
        listed = schema.get(name)
        for part in listed if isinstance(listed, list) else ():
            yield from _parts(part)
    for name in _SINGLE:
        yield from _parts(schema.get(name))


def _check_min_properties(part: Schema) -> None:
    """{"a": 1, "a": 2} has one property and is written as two."""
    least, required = part.get("minProperties"), part.get("required")
    known = len(set(map(str, required))) if isinstance(required, list) else 0
    if isinstance(least, int | float) and least > max(known, 1):
        raise RequestError(
            f"minProperties {least} cannot be kept to, since JSON may repeat a property; name "
            "the properties in required"
        )


def _is_composed(part: Schema) -> bool:
    """Whether several schemas apply to one value: what one does not name, another may."""
    others = [name for name in _APPLIED if name in part]
    whole = part.get("allOf")
    several = isinstance(whole, list) and len(whole) > 1
    return several or len(others) + ("properties" in part) > 1


def _close(part: Schema, *, always: bool) -> None:
    """Write only properties that are named; JSON Schema allows others where it says nothing, and
    a model that has begun to write others seldom comes to an end."""
    properties, required = part.get("properties"), part.get("required", [])
    named = (
        isinstance(properties, dict)
        and isinstance(required, list)
        and bool(properties)
        and set(map(str, required)) <= properties.keys()
    )
    is_object = part.get("type") == "object" or "properties" in part
    said = {"additionalProperties", "patternProperties"} & part.keys()
    if not said and (named or (always and is_object)):
        part["additionalProperties"] = False
