"""Functionary 3.1 and 3.2."""

from collections.abc import Mapping
from typing import Any

from serve.reply.events import Output
from serve.reply.format import ToolFormat
from serve.reply.json_calls import arguments_until
from serve.reply.named_calls import MAX_NAME, NamedCalls
from serve.reply.reader import Reader, Reading, text_until

_NEXT = ">>>"


def functionary_v32(reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
    """`all` and a newline before the answer, a tool's name before its arguments; `>>>` between."""
    yield from reader.accept(_NEXT)
    going_on: str | None = _NEXT
    while going_on:
        head, stop = yield from text_until(reader, "\n", _NEXT, keep=True)
        name = head.strip()
        yield from reader.accept("\n")
        if name == "all" or stop != "\n" or not name or len(name) > MAX_NAME or " " in name:
            out.content("" if name == "all" else head + ("\n" if stop == "\n" else ""))
            going_on = yield from reader.until(_NEXT, emit=out.content)
            continue
        out.begin_call(name)
        yield from arguments_until(reader, out.arguments)
        going_on = yield from reader.until(_NEXT, emit=lambda _: None)


FORMATS = (
    ToolFormat(
        ("functionary_v3_llama_31", "functionary"),
        NamedCalls(begin=("<function=",), then=(">",), end=("</function>",)),
        marks=(("<function=", "</function>"),),
    ),
    ToolFormat(("functionary_v3_2",), functionary_v32, marks=((">>>all", "<|eot_id|>"),)),
)
