"""Calls whose parameters stand each between tags, as bare text.

<function=get_weather><parameter=city>Rome</parameter></function>
<invoke name="get_weather"><parameter name="city">Rome</parameter></invoke>
get_weather<arg_key>city</arg_key><arg_value>Rome</arg_value>
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve.reply.bound import CallsOrAnswer, Part, Wish, either, tag, tagged
from serve.reply.events import Output
from serve.reply.named_calls import MAX_NAME
from serve.reply.reader import Reader, Reading, text_until
from serve.reply.reply import Grammar
from serve.reply.tagged_grammar import tagged_call
from serve.reply.tags import Tags
from serve.reply.values import is_text, json_text, properties_of

_IS_TEXT = {"true": True, "false": False}


@dataclass(frozen=True)
class TaggedCalls:
    """Reads such calls, and binds them to the schemas of their tools."""

    tags: Tags

    def chosen(self) -> Grammar:
        """Calls begin with a mark."""
        return CallsOrAnswer(self, (self.tags.call, *self.tags.around))

    def bound(self, wish: Wish) -> Part:
        """The tags, and between them what each parameter's schema says."""
        calls = (tagged_call(self.tags, name, schema) for name, schema in wish.tools.items())
        return tagged(wish, [tag(self.tags.call, either(*calls))], self.tags.around)

    def __call__(self, reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
        marks = (self.tags.call, *self.tags.around)
        while mark := (yield from reader.until(*marks, emit=out.content)):
            if mark == self.tags.call:
                yield from self._call(reader, out, tools)

    def _call(self, reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
        tags = self.tags
        head, stop = yield from text_until(reader, *tags.named, keep=tags.named_stays)
        name = head.strip()
        if stop is None or not name or len(name) > MAX_NAME or "\n" in name:
            out.content(tags.call + head + ("" if tags.named_stays else stop or ""))
            return
        out.begin_call(name)
        schemas = properties_of(tools, name)
        before = "{"
        closing = (tags.end, *tags.around)
        while (yield from reader.until(tags.parameter, *closing, emit=_ignore)) == tags.parameter:
            key, stop = yield from text_until(reader, tags.keyed)
            if stop is None:
                break
            out.arguments(f"{before}{json.dumps(key.strip(), ensure_ascii=False)}: ")
            yield from self._value(reader, out, schemas.get(key.strip()))
            before = ", "
        out.arguments("{}" if before == "{" else "}")

    def _value(self, reader: Reader, out: Output, schema: Any) -> Reading[None]:
        tags, text = self.tags, is_text(schema)
        if tags.before_value:
            yield from reader.blanks()
            yield from reader.accept(tags.before_value)
        if tags.typed:
            attributes, _ = yield from text_until(reader, ">")
            text = _IS_TEXT.get(attributes.strip().removeprefix("string=").strip('"'), text)
            schema = {"type": "string"} if text else schema or {"type": "object"}
        if text:
            yield from _text_value(reader, out, tags.valued, "\n" if tags.padded else "")
            return
        value, _ = yield from text_until(reader, tags.valued)
        if tags.padded:
            value = value.removeprefix("\n").removesuffix("\n")
        out.arguments(json_text(value, schema))


def _text_value(reader: Reader, out: Output, end: str, pad: str) -> Reading[None]:
    """Hand a string on while it is written, without one `pad` at each end."""
    out.arguments('"')
    yield from reader.accept(pad)
    held = ""

    def emit(text: str) -> None:
        nonlocal held
        text = held + text
        held = pad if text.endswith(pad) else ""
        out.arguments(json.dumps(text.removesuffix(pad), ensure_ascii=False)[1:-1])

    if (yield from reader.until(end, emit=emit)) is None:
        emit("")
    out.arguments('"')


def _ignore(text: str) -> None:
    """Blanks between tags, and what else does not belong there."""
