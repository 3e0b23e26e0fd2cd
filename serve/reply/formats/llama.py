"""Llama 3.1 and later: JSON objects that are the whole reply; 3.2 and 4 also write Python calls."""

from collections.abc import Mapping
from typing import Any

from serve.reply.bound import (
    BLANKS,
    NOTHING,
    Part,
    Wish,
    const,
    either,
    in_order,
    json_part,
    several_of,
)
from serve.reply.events import Output
from serve.reply.format import ToolFormat
from serve.reply.json_calls import JsonCalls, Keys, parsed
from serve.reply.python_calls import PythonCalls
from serve.reply.reader import Reader, Reading, collected
from serve.reply.reply import Grammar

_TAG = "<|python_tag|>"
_CALL = JsonCalls(begin=(_TAG,), keys=Keys(arguments=("parameters", "arguments")))
# whatever does not begin like a call
_TEXT = r"""start: TEXT
TEXT: /(.|\n)*/ & ~/[\s\x1c-\x1f]*(\{|<\|python_tag\|>)(.|\n)*/
"""


class LlamaCalls:
    """`{"name": ..., "parameters": {...}}; {...}` at the beginning, or the answer."""

    def __call__(self, reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
        reader.record()
        yield from reader.blanks()
        yield from reader.accept(_TAG)
        while (yield from reader.blanks()) == "{":
            found = yield from _CALL.value(reader, out)
            text = reader.recorded()
            if not found:
                out.content(text)
                break
            yield from reader.blanks()
            reader.record()
            yield from reader.accept(";", ",")
        else:
            out.content(reader.recorded())
        yield from reader.rest(out.content)

    def bound(self, wish: Wish) -> Part:
        """Calls are the whole reply; beside a bound answer, which may be JSON too, it is one."""
        call = in_order(BLANKS, json_part(_CALL.object_schema(wish)))
        one = wish.one_call or wish.answer is not None
        calls = in_order(either(const(_TAG), NOTHING), several_of([call], ";", one=one))
        return either(calls, wish.answer or {"type": "grammar", "grammar": _TEXT})

    def chosen(self) -> Grammar:
        """An object is a call if it is one whole: its keys and its tool tell."""
        return _call_or_json


def _call_or_json(reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
    yield from reader.blanks()
    yield from reader.accept(_TAG)
    if (yield from reader.blanks()) == "{":
        text, _ = yield from collected(reader.json_value)
        call = parsed(text)
        if isinstance(call, dict) and _is_call(call, tools):
            inner = Reader()
            inner.feed(text)
            inner.end()
            yield from _CALL.value(inner, out)
        else:
            out.content(text)
    yield from reader.rest(out.content)


def _is_call(value: dict[str, Any], tools: Mapping[str, Any]) -> bool:
    name = value.get("name")
    return set(value) == {"name", "parameters"} and isinstance(name, str) and name in tools


FORMATS = (
    ToolFormat(
        ("llama3_json", "llama4_json", "llama3"),
        LlamaCalls(),
        marks=(('"parameters"', "ipython"), ('"parameters": dictionary',)),
    ),
    ToolFormat(("pythonic", "llama4_pythonic", "llama4"), PythonCalls(), marks=()),
)
