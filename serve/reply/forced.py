"""Replies that are calls because their grammar admits nothing else.

tool_choice required    [{"name": "get_weather", "parameters": {"city": "Rome"}}, ...]
tool_choice of a name   {"city": "Rome"}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serve.protocol.tools import Tool, ToolChoice
from serve.reply.bound import Wish
from serve.reply.events import Output
from serve.reply.json_calls import JsonCalls, Keys, arguments_until
from serve.reply.reader import Reader, Reading

_CALLS = JsonCalls(begin=(), keys=Keys(arguments=("parameters",)))
_ANY_OBJECT: dict[str, Any] = {"type": "object"}


def required_calls(reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
    """A list of one or more calls."""
    yield from _CALLS.value(reader, out)


@dataclass(frozen=True)
class NamedCall:
    """The arguments of the tool `name`, and no more."""

    name: str

    def __call__(self, reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
        out.begin_call(self.name)
        yield from arguments_until(reader, out.arguments)


def forced_schema(tools: Sequence[Tool], choice: ToolChoice, *, one_call: bool) -> Any:
    """The JSON schema of a reply to which `choice` leaves no choice; None where it leaves one."""
    if choice in ("none", "auto"):
        return None
    parameters = {tool.function.name: tool.function.parameters or _ANY_OBJECT for tool in tools}
    if not isinstance(choice, str):
        return parameters[choice.function.name]
    schema = _CALLS.object_schema(Wish(parameters))
    items = {"$defs": schema["$defs"], "type": "array", "minItems": 1}
    return {**items, "items": {"anyOf": schema["anyOf"]}, **({"maxItems": 1} if one_call else {})}
