"""Python calls as a grammar: arguments in their schema's order, each value as JSON.

    get_weather(city="Rome", days=3, exact=True)

What is true, false or null as a whole may also be written as Python does. Those of a tool that
names no parameters have any names.
"""

import re
from collections.abc import Mapping
from typing import Any

from engine.errors import RequestError
from serve.reply.bound import Part, const, either, in_order, json_part, tag
from serve.reply.parameters import TOLD, json_value, parameters_of, refused

NAME = re.compile(r"[A-Za-z_][\w.\-]{0,255}\Z")
_MAX_DEPTH = 8  # of anyOf; deeper in, only JSON's names are written
_NAMES = {"boolean": ("True", "False"), "null": ("None",)}
_UNTOUCHED = TOLD | {
    "type", "minLength", "maxLength", "pattern", "format", "minimum", "maximum", "multipleOf",
    "exclusiveMinimum", "exclusiveMaximum", "items", "minItems", "maxItems", "properties",
    "required", "additionalProperties", "$defs",
}  # fmt: skip


def python_call(tool: str, schema: Mapping[str, Any], before: str = "") -> Part:
    """`tool(key=value, ...)` behind the regex `before`; raises RequestError for what cannot be kept
    to."""
    if not NAME.match(tool):
        raise RequestError(
            f"tools: {tool[:64]!a} is no name that this model can call, since it writes calls as "
            "Python does; rename it, or send tool_choice required.",
            "tools",
        )
    opening = {"type": "regex", "pattern": f"{before}{re.escape(tool)}\\("}
    return in_order(opening, _arguments(tool, schema), const(")"))


def _arguments(tool: str, schema: Mapping[str, Any]) -> Part:
    parameters = parameters_of(tool, schema)
    if parameters.others is not False:
        return _any_arguments(parameters.others)
    elements = []
    for key, value in parameters.schemas.items():
        if not key.isidentifier():
            raise refused(
                f"{tool}.{key}", "no argument may have this name as this model writes calls"
            )
        names = [const(name) for name in _python_names(value)]
        written = in_order(const(f"{key}="), either(json_value(tool, schema, key), *names))
        elements.append({"content": written, "optional": key not in parameters.required})
    return {"type": "ordered", "elements": elements, "separator": ", "}


def _any_arguments(schema: Any) -> Part:
    """Of a tool that does not name them."""
    key = {"type": "regex", "pattern": "[A-Za-z_][A-Za-z0-9_]{0,63}"}
    names = [const(name) for name in _python_names(schema)]
    value = either(json_part({} if schema is True else schema), *names)
    each = in_order(key, const("="), value)
    return {"type": "tags_with_separator", "tags": [tag("", each)], "separator": ", "}


def _python_names(schema: Any, depth: int = 0) -> list[str]:
    """How Python spells values that the schema plainly allows."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return []
    options = schema.get("anyOf")
    if isinstance(options, list) and schema.keys() <= TOLD | {"anyOf"}:
        return sorted({name for option in options for name in _python_names(option, depth + 1)})
    types = schema.get("type") if schema.keys() <= _UNTOUCHED else None
    listed = types if isinstance(types, list) else [types]
    return [name for kind in listed for name in _NAMES.get(str(kind), ())]
