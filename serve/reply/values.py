"""Arguments that formats write as bare text: which of them are text, and which are JSON.

The tool's own schema decides.
"""

import json
from collections.abc import Mapping
from typing import Any

from serve.reply.json_calls import parsed

_PYTHON = {"True": "true", "False": "false", "None": "null"}
_MAX_DEPTH = 8  # of anyOf within anyOf


def is_text(schema: Any) -> bool:
    """Whether a value of this schema can only be a string; so is what has no schema."""
    types = types_of(schema)
    return not types or types == {"string"}


def json_text(text: str, schema: Any) -> str:
    """The JSON of an argument that was written as bare `text`."""
    if is_text(schema):
        return json.dumps(text, ensure_ascii=False)
    bare = text.strip()
    bare = _PYTHON.get(bare, bare)
    value = parsed(bare)
    if bare != "null" and (
        value is None or (isinstance(value, str) and "string" in types_of(schema))
    ):
        return json.dumps(text, ensure_ascii=False)
    return bare


def properties_of(tools: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The schemas of a tool's parameters, their references to its definitions followed; nothing if
    it has none or is not known."""
    parameters = tools.get(name)
    found = parameters.get("properties") if isinstance(parameters, dict) else None
    if not isinstance(found, dict):
        return {}
    return {key: _followed(schema, parameters) for key, schema in found.items()}


def _followed(schema: Any, root: Any) -> Any:
    """What `{"$ref": "#/$defs/Color"}` stands for, as pydantic writes it; else the schema."""
    for _ in range(_MAX_DEPTH):
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        target = root
        for name in reference[2:].split("/"):
            target = target.get(name) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            break
        schema = {**target, **{k: v for k, v in schema.items() if k != "$ref"}}
    return schema


def types_of(schema: Any, depth: int = 0) -> set[str]:
    """The names of the JSON types that a schema allows, where it says so plainly."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return set()
    named = schema.get("type")
    types = {named} if isinstance(named, str) else set()
    if isinstance(named, list):
        types |= {each for each in named if isinstance(each, str)}
    for key in ("anyOf", "oneOf", "allOf"):
        for each in schema[key] if isinstance(schema.get(key), list) else ():
            types |= types_of(each, depth + 1)
    values = schema.get("enum")
    if not types and isinstance(values, list):
        types = {"string" if isinstance(value, str) else "other" for value in values}
    return types
