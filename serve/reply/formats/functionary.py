"""Functionary 3.1 and 3.2."""

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
    tag,
    text_until,
)
from serve.reply.events import Output
from serve.reply.format import ToolFormat
from serve.reply.json_calls import arguments_until
from serve.reply.named_calls import MAX_NAME, NamedCalls
from serve.reply.parameters import refused
from serve.reply.reader import Reader, Reading
from serve.reply.reader import text_until as read_until
from serve.reply.reply import Grammar

_NEXT = ">>>"
_ALL = "all"


class RecipientCalls:
    """`all` and a newline before the answer, a tool's name before its arguments; `>>>` between."""

    def __call__(self, reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
        yield from reader.accept(_NEXT)
        going_on: str | None = _NEXT
        while going_on:
            head, stop = yield from read_until(reader, "\n", _NEXT, keep=True)
            name = head.strip()
            yield from reader.accept("\n")
            if name == _ALL or stop != "\n" or not name or len(name) > MAX_NAME or " " in name:
                out.content("" if name == _ALL else head + ("\n" if stop == "\n" else ""))
                going_on = yield from reader.until(_NEXT, emit=out.content)
                continue
            out.begin_call(name)
            yield from arguments_until(reader, out.arguments)
            going_on = yield from reader.until(_NEXT, emit=lambda _: None)

    def chosen(self) -> Grammar:
        """An answer is behind `all`."""
        return _CallsOrAll(self)

    def bound(self, wish: Wish) -> Part:
        """A tool's name and its arguments; text, which is `all`'s, ends with the first `>>>`.

        Raises RequestError for a tool that is called as the answer is.
        """
        if _ALL in wish.tools:
            raise refused(_ALL, "this model writes that before its answers; use another name")
        calls = [tag(f"{name}\n", json_part(schema)) for name, schema in wish.tools.items()]
        begun, answer = either(const(_NEXT), NOTHING), wish.answer
        if answer is not None:
            several = several_of(calls, _NEXT, one=wish.one_call)
            return in_order(begun, either(several, in_order(const(f"{_ALL}\n"), answer)))
        texts = {"type": "any_text", "excludes": [_NEXT, *wish.excludes]}
        before = [text_until(_NEXT, begin=f"{_ALL}\n", excludes=wish.excludes)]
        before += [tag("", in_order(call, BLANKS), _NEXT) for call in calls]
        parts = {"type": "tags_with_separator", "tags": before, "separator": ""}
        return in_order(begun, parts, either(in_order(const(f"{_ALL}\n"), texts), *calls))


class _CallsOrAll:
    """Reads a reply that is calls, or an answer that may hold anything."""

    def __init__(self, calls: Grammar) -> None:
        self._calls = calls

    def __call__(self, reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
        yield from reader.accept(_NEXT)
        if (yield from reader.begins(f"{_ALL}\n")):
            yield from reader.accept(f"{_ALL}\n")
            yield from reader.rest(out.content)
        else:
            yield from self._calls(reader, out, tools)


FORMATS = (
    ToolFormat(
        ("functionary_v3_llama_31", "functionary"),
        NamedCalls(begin=("<function=",), then=(">",), end=("</function>",)),
        marks=(("<function=", "</function>"),),
    ),
    ToolFormat(("functionary_v3_2",), RecipientCalls(), marks=((">>>all", "<|eot_id|>"),)),
)
