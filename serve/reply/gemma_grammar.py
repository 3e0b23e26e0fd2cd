"""Gemma's calls as a grammar: arguments in their schema's order, texts between marks.

    call:get_weather{city:<|"|>Rome<|"|>,days:3,at:{hour:7}}

Texts, lists and objects are written as Gemma does where their schemas are plain; what asks for more
is JSON, which is read as well.
"""

import re
from collections.abc import Mapping
from typing import Any

from engine.errors import RequestError
from serve.reply.bound import Part, const, either, in_order, json_part, tag, text_until
from serve.reply.parameters import TOLD, Parameters, json_value, parameters_of, refused

_KEY = re.compile(r"[\w.$\-]{1,128}\Z")
_MAX_DEPTH = 8  # of objects and lists; deeper ones are JSON


def gemma_call(tool: str, schema: Mapping[str, Any], *, quote: str, end: str) -> Part:
    """What follows the mark that begins a call, up to `end`; texts stand between two of `quote`.

    Raises RequestError for what cannot be kept to.
    """
    parameters = parameters_of(tool, schema)
    for key in parameters.schemas:
        if not _KEY.match(key):
            raise refused(
                f"{tool}.{key}", "no argument may have this name as this model writes calls"
            )
    if parameters.others is False:
        values = {
            key: _value(quote, value, 0) or json_value(tool, schema, key)
            for key, value in parameters.schemas.items()
        }
        arguments = _members(values, parameters)
    else:
        any_key = {"type": "regex", "pattern": r"[A-Za-z0-9_.$-]{1,64}"}
        others = {} if parameters.others is True else parameters.others
        value = _value(quote, others, 0) or json_part(others)
        arguments = _several(in_order(any_key, const(":"), value))
    return in_order(const(f"call:{tool}{{"), arguments, const("}" + end))


def _value(quote: str, schema: Any, depth: int) -> Part | None:
    """As Gemma writes it; None where that could not keep to the schema."""
    if schema is True or schema == {}:
        return either(_text(quote), json_part({}))
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return None
    keywords = schema.keys() - TOLD
    if keywords == {"anyOf"} and isinstance(schema["anyOf"], list):
        found = [_value(quote, each, depth + 1) for each in schema["anyOf"]]
        options = [each for each in found if each is not None]
        return either(*options) if options and len(options) == len(found) else None
    if keywords == {"type"} and isinstance(schema["type"], list):
        return _value(quote, {"anyOf": [{"type": each} for each in schema["type"]]}, depth)
    match schema.get("type"):
        case "string" if keywords == {"type"}:
            return _text(quote)
        case "string" | None if keywords - {"type"} == {"enum"}:
            return _one_of(quote, schema["enum"])
        case "array" if keywords == {"type", "items"}:
            item = _value(quote, schema["items"], depth + 1)
            return item and in_order(const("["), _several(item), const("]"))
        case "object" if "properties" in keywords:
            return _object(quote, schema, depth)
        case "integer" | "number" | "boolean" | "null" if keywords == {"type"}:
            return json_part({"type": schema["type"]})
    return None


def _object(quote: str, schema: Mapping[str, Any], depth: int) -> Part | None:
    if schema.keys() - TOLD - {"type", "properties", "required", "additionalProperties"}:
        return None
    try:
        parameters = parameters_of("", schema)
    except RequestError:
        return None
    values = {key: _value(quote, each, depth + 1) for key, each in parameters.schemas.items()}
    if not all(values.values()) or not all(map(_KEY.match, values)):
        return None
    return in_order(const("{"), _members(values, parameters), const("}"))


def _members(values: Mapping[str, Part | None], parameters: Parameters) -> Part:
    elements = [
        {"content": in_order(const(f"{key}:"), value), "optional": key not in parameters.required}
        for key, value in values.items()
        if value is not None
    ]
    return {"type": "ordered", "elements": elements, "separator": ","}


def _several(part: Part) -> Part:
    return {"type": "tags_with_separator", "tags": [tag("", part)], "separator": ","}


def _text(quote: str) -> Part:
    return text_until(quote, begin=quote, excludes=[quote])


def _one_of(quote: str, values: Any) -> Part | None:
    """Of some texts."""
    plain = isinstance(values, list) and all(
        isinstance(value, str) and quote not in value for value in values
    )
    texts = [const(quote + value + quote) for value in values] if plain else []
    return either(*texts) if texts else None
