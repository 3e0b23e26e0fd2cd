"""Calls written as JSON objects, alone or in a list, between two marks.

    <tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>
    [TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]

The text of the arguments is handed on as the model wrote it. What turns out to be no call is part
of the answer, as it was.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from serve.reply.bound import (
    BLANKS,
    NOTHING,
    CallsOrAnswer,
    Part,
    Wish,
    const,
    either,
    in_order,
    json_part,
    tag,
    tagged,
    together,
)
from serve.reply.events import Output
from serve.reply.reader import Emit, Reader, Reading, collected
from serve.reply.reply import Grammar

_END_OF_OBJECT = ("}", "")


@dataclass(frozen=True)
class Keys:
    """How a format calls the parts of a call; of several, the first is what models write."""

    name: tuple[str, ...] = ("name",)
    arguments: tuple[str, ...] = ("arguments", "parameters")
    id: str | None = None  # which may come first, or last


@dataclass(frozen=True)
class JsonCalls:
    """Objects between `begin` and `end`; no end is the end of the object or list."""

    begin: tuple[str, ...]
    end: str | None = None
    keys: Keys = Keys()
    name_as_key: bool = False  # {"get_weather": {"city": "Rome"}}

    def chosen(self) -> Grammar:
        """Calls begin with a mark."""
        return CallsOrAnswer(self, self.begin)

    def bound(self, wish: Wish) -> Part:
        """Objects, or lists of them, between the marks, of which the last may be left out."""
        parts = [BLANKS, json_part(self.schema(wish))]
        if self.end:
            parts.append(either(in_order(BLANKS, const(self.end)), NOTHING))
        return tagged(wish, [tag(begin, in_order(*parts)) for begin in self.begin])

    def schema(self, wish: Wish) -> dict[str, Any]:
        """What stands between the marks: a call, or a list of them."""
        one = self.object_schema(wish)
        most = {"maxItems": 1} if wish.one_call and wish.answer is not None else {}
        listed = {"type": "array", "minItems": 1, "items": {"anyOf": one["anyOf"]}, **most}
        return {**one, "anyOf": [listed, *one["anyOf"]]}

    def object_schema(self, wish: Wish) -> dict[str, Any]:
        """A call of any tool."""
        definitions, references = together(wish.tools)
        calls = [call for name, each in references.items() for call in self._objects(name, each)]
        return {"$defs": definitions, "anyOf": calls}

    def _objects(self, name: str, arguments: Any) -> list[dict[str, Any]]:
        """A call of one tool; in several orders where an id may stand in several places."""
        if self.name_as_key:
            return [_closed({name: arguments})]
        call = {self.keys.name[0]: {"const": name}, self.keys.arguments[0]: arguments}
        if self.keys.id is None:
            return [_closed(call)]
        call_id = {self.keys.id: {"type": "string", "maxLength": 40}}
        return [_closed(call), _closed({**call_id, **call}), _closed({**call, **call_id})]

    def __call__(self, reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
        while mark := (yield from reader.until(*self.begin, emit=out.content)):
            reader.record()
            found = yield from self.value(reader, out)
            text = reader.recorded()
            if not found:
                out.content(mark + text)
                continue
            if self.end and (yield from reader.blanks()) == self.end[0]:
                yield from reader.accept(self.end)

    def value(self, reader: Reader, out: Output) -> Reading[bool]:
        """Read an object, or a list of them; whether a call was found."""
        before = out.num_calls
        if (yield from reader.blanks()) != "[":
            yield from self._object(reader, out)
            return out.num_calls > before
        yield from reader.accept("[")
        while (yield from reader.blanks()) == "{":
            complete = yield from self._object(reader, out)
            following = yield from reader.blanks()
            if not complete or following != ",":
                break
            yield from reader.accept(",")
        yield from reader.accept("]")
        return out.num_calls > before

    def _object(self, reader: Reader, out: Output) -> Reading[bool]:
        """One call; whether the object is complete."""
        if (yield from reader.blanks()) != "{":
            return False
        yield from reader.accept("{")
        call = _Call(out, self.keys)
        while (yield from reader.blanks()) not in _END_OF_OBJECT:
            if not (yield from self._member(reader, call)):
                return False
        call.close()
        return bool((yield from reader.accept("}")))

    def _member(self, reader: Reader, call: "_Call") -> Reading[bool]:
        """Read `"key": value` and the comma after it, if one is there."""
        text, _ = yield from collected(reader.json_value)
        key = parsed(text)
        yield from reader.blanks()
        if not isinstance(key, str) or not (yield from reader.accept(":")):
            return False
        if self.name_as_key:
            call.begin(key)
            key = self.keys.arguments[0]
        if key in self.keys.arguments:
            complete = yield from call.read_arguments(reader)
        else:
            text, complete = yield from collected(reader.json_value)
            call.note(key, parsed(text))
        yield from reader.blanks()
        yield from reader.accept(",")
        return complete


class _Call:
    """A call whose name may come after its arguments."""

    def __init__(self, out: Output, keys: Keys) -> None:
        self._out = out
        self._keys = keys
        self._begun = self._has_arguments = False
        self._held: list[str] = []

    def note(self, key: str, value: Any) -> None:
        """A member that is not the arguments."""
        if key in self._keys.name and isinstance(value, str) and value and not self._begun:
            self.begin(value)

    def begin(self, name: str) -> None:
        self._out.begin_call(name)
        self._begun = True
        self._emit("".join(self._held))

    def read_arguments(self, reader: Reader) -> Reading[bool]:
        """Hand the value on; one that is JSON text in a string, or null, as what it means."""
        self._has_arguments = True
        first = yield from reader.blanks()
        if first == "{":
            return (yield from reader.json_value(self._emit))
        text, complete = yield from collected(reader.json_value)
        value = parsed(text)
        self._emit(value if isinstance(value, str) else "{}" if value is None else text)
        return complete

    def close(self) -> None:
        if self._begun and not self._has_arguments:
            self._emit("{}")

    def _emit(self, text: str) -> None:
        if self._begun:
            self._out.arguments(text)
        else:
            self._held.append(text)


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object that has these properties and no others."""
    return {
        "type": "object", "properties": properties, "required": list(properties),
        "additionalProperties": False,
    }  # fmt: skip


def parsed(text: str) -> Any:
    """The value of a JSON text; None if it is none, as Python's NaN."""
    try:
        return json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return None


def _refused(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def arguments_until(reader: Reader, emit: Emit) -> Reading[bool]:
    """Hand on the JSON object that follows, or {} where there is none."""
    if (yield from reader.blanks()) != "{":
        emit("{}")
        return False
    return (yield from reader.json_value(emit))
