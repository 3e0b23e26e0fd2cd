"""The parameters of a tool, for formats that write each by itself and no object around them.

Owns what a strict tool may say of its parameters as a whole; how a value is written, and which
schemas can be kept to so, is each format's own.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from engine.errors import RequestError
from serve.reply.bound import Part, json_part, together

TOLD = frozenset({"description", "title", "default", "examples", "$comment"})  # binds nothing
_OBJECT = TOLD | {
    "type", "properties", "required", "additionalProperties", "$defs", "definitions", "$schema",
    "$id",
}  # fmt: skip


@dataclass(frozen=True)
class Parameters:
    """`others` is the schema of those that have no name; False where there are no others."""

    schemas: Mapping[str, Any]
    required: frozenset[str]
    others: Any


def parameters_of(tool: str, schema: Mapping[str, Any]) -> Parameters:
    """In the order in which the tool names them; raises RequestError for what cannot be kept to."""
    check_keys(tool, schema, _OBJECT)
    named, required = schema.get("properties"), schema.get("required", [])
    known = {} if named is None else named
    if not isinstance(known, dict):
        raise refused(tool, "properties must be an object")
    if not isinstance(required, list) or not set(map(str, required)) <= known.keys():
        raise refused(tool, "required names what is not among its properties")
    for key, each in known.items():
        if each is not True and not isinstance(each, dict):
            raise refused(f"{tool}.{key}", "its schema must be an object")
    others = schema.get("additionalProperties", True) if named is None else False
    return Parameters(known, frozenset(map(str, required)), others)


def json_value(tool: str, schema: Mapping[str, Any], key: str) -> Part:
    """The value of parameter `key` as JSON; what it refers to is in its tool's schema."""
    value = schema["properties"][key]
    if value is True:
        return json_part({})
    try:
        refers = '"$ref"' in json.dumps(value)
    except (RecursionError, ValueError):
        raise refused(f"{tool}.{key}", "its schema is nested too deeply") from None
    if not refers:
        return json_part({name: each for name, each in value.items() if name not in TOLD})
    definitions, references = together({tool: schema})
    place = f"{references[tool]['$ref']}/properties/{quote(key)}"
    return json_part({"$defs": definitions, "$ref": place})


def check_keys(where: str, schema: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise RequestError for a keyword that is not `known`."""
    unknown = sorted(schema.keys() - set(known))
    if unknown:
        raise refused(where, f"{unknown[0]} cannot be kept to as this model writes calls")


def refused(where: str, why: str) -> RequestError:
    """What to raise about the tool, or the parameter of a tool, that is named `where`."""
    return RequestError(
        f"tools: {where[:120]}: {why}; leave out strict, or send tool_choice required.",
        "tools",
    )
