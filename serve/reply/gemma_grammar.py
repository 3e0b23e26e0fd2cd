"""Gemma's calls as a grammar: arguments in their schema's order, texts between marks.

    call:get_weather{city:<|"|>Rome<|"|>,days:3,at:{hour:7}}

Texts, lists and objects are written as Gemma does where their schemas are plain; what asks for more
is JSON, which is read as well.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.errors import RequestError
from serve.reply.bound import Part, const, either, in_order, json_part, tag, text_until
from serve.reply.parameters import TOLD, Parameters, json_value, parameters_of, refused

if TYPE_CHECKING:
    from serve.reply.gemma_calls import GemmaCalls

_KEY = re.compile(r"[\w.$\-]{1,128}\Z")
_MAX_DEPTH = 8  # of objects and lists; deeper ones are JSON


def gemma_call(form: "GemmaCalls", tool: str, schema: Mapping[str, Any]) -> Part:
    """What follows the mark that begins a call; raises RequestError for what cannot be kept to."""
    parameters = parameters_of(tool, schema)
    for key in parameters.schemas:
        if not _KEY.match(key):
            raise refused(
                f"{tool}.{key}", "no argument may have this name as this model writes calls"
            )
    if parameters.others is False:
        values = {
            key: _value(form, value, 0) or json_value(tool, schema, key)
            for key, value in parameters.schemas.items()
        }
        arguments = _members(values, parameters)
    else:
        any_key = {"type": "regex", "pattern": r"[A-Za-z0-9_.$-]{1,64}"}
        others = {} if parameters.others is True else parameters.others
        value = _value(form, others, 0) or json_part(others)
        arguments = _several(in_order(any_key, const(":"), value))
    return in_order(const(f"call:{tool}{{"), arguments, const("}" + form.end))


def _value(form: "GemmaCalls", schema: Any, depth: int) -> Part | None:
    """As Gemma writes it; None where that could not keep to the schema."""
    if schema is True or schema == {}:
        return either(_text(form), json_part({}))
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return None
    keywords = schema.keys() - TOLD
    if keywords == {"anyOf"} and isinstance(schema["anyOf"], list):
        found = [_value(form, each, depth + 1) for each in schema["anyOf"]]
        options = [each for each in found if each is not None]
        return either(*options) if options and len(options) == len(found) else None
    if keywords == {"type"} and isinstance(schema["type"], list):
        return _value(form, {"anyOf": [{"type": each} for each in schema["type"]]}, depth)
    match schema.get("type"):
        case "string" if keywords == {"type"}:
            return _text(form)
        case "string" | None if keywords - {"type"} == {"enum"}:
            return _one_of(form, schema["enum"])
        case "array" if keywords == {"type", "items"}:
            item = _value(form, schema["items"], depth + 1)
            return item and in_order(const("["), _several(item), const("]"))
        case "object" if "properties" in keywords:
            return _object(form, schema, depth)
        case "integer" | "number" | "boolean" | "null" if keywords == {"type"}:
            return json_part({"type": schema["type"]})
    return None


def _object(form: "GemmaCalls", schema: Mapping[str, Any], depth: int) -> Part | None:
    if schema.keys() - TOLD - {"type", "properties", "required", "additionalProperties"}:
        return None
    try:
        parameters = parameters_of("", schema)
    except RequestError:
        return None
    values = {key: _value(form, each, depth + 1) for key, each in parameters.schemas.items()}
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


def _text(form: "GemmaCalls") -> Part:
    return text_until(form.quote, begin=form.quote, excludes=[form.quote])


def _one_of(form: "GemmaCalls", values: Any) -> Part | None:
    """Of some texts."""
    plain = isinstance(values, list) and all(
        isinstance(value, str) and form.quote not in value for value in values
    )
    texts = [const(form.quote + value + form.quote) for value in values] if plain else []
    return either(*texts) if texts else None
