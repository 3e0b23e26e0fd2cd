"""Llama 3.1 and later: JSON objects that are the whole reply; 3.2 and 4 also write Python calls."""

from collections.abc import Mapping
from typing import Any

from serve.reply.events import Output
from serve.reply.format import ToolFormat
from serve.reply.json_calls import JsonCalls
from serve.reply.python_calls import PythonCalls
from serve.reply.reader import Reader, Reading

_TAG = "<|python_tag|>"
_CALL = JsonCalls(begin=(_TAG,))


def llama3_json(reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
    """`{"name": ..., "parameters": {...}}; {...}` at the beginning, or the answer."""
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


FORMATS = (
    ToolFormat(
        ("llama3_json", "llama4_json", "llama3"),
        llama3_json,
        marks=(('"parameters"', "ipython"), ('"parameters": dictionary',)),
    ),
    ToolFormat(("pythonic", "llama4_pythonic", "llama4"), PythonCalls(), marks=()),
)
