"""Calls as Gemma writes them: an object without quotes, its strings between marks.

<|tool_call>call:get_weather{city:<|"|>Rome<|"|>,days:3}<tool_call|>
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve.reply.events import Output
from serve.reply.json_calls import parsed
from serve.reply.named_calls import MAX_NAME
from serve.reply.reader import Emit, Reader, Reading, text_until

_MAX_DEPTH = 64
_CLOSING = {"{": "}", "[": "]"}


@dataclass(frozen=True)
class GemmaCalls:
    """`begin` name object `end`; strings stand between two of `quote`."""

    begin: str
    end: str
    quote: str

    def __call__(self, reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
        while (yield from reader.until(self.begin, emit=out.content)):
            head, stop = yield from text_until(reader, "{", self.end, "\n", keep=True)
            name = head.removeprefix("call:").strip()
            if stop != "{" or not name or len(name) > MAX_NAME:
                out.content(self.begin + head)
                continue
            out.begin_call(name)
            yield from self._value(reader, out.arguments, 0)
            yield from reader.until(self.end, emit=_ignore)

    def _value(self, reader: Reader, emit: Emit, depth: int) -> Reading[None]:
        """Hand a value on as JSON."""
        first = yield from reader.blanks()
        if first in _CLOSING and depth < _MAX_DEPTH:
            yield from self._members(reader, emit, depth, first)
        elif (yield from reader.accept(self.quote)):
            yield from self._string(reader, emit)
        else:
            stops = (",", "}", "]", self.quote, self.end)
            text, _ = yield from text_until(reader, *stops, keep=True)
            bare = text.strip()
            is_json = bare == "null" or parsed(bare) is not None
            emit(bare if is_json else json.dumps(bare, ensure_ascii=False))

    def _members(self, reader: Reader, emit: Emit, depth: int, opening: str) -> Reading[None]:
        yield from reader.accept(opening)
        emit(opening)
        before = ""
        closing = _CLOSING[opening]
        while (yield from reader.blanks()) not in (closing, ""):
            emit(before)
            if opening == "{":
                yield from self._key(reader, emit)
            yield from self._value(reader, emit, depth + 1)
            before = ", "
            yield from reader.blanks()
            if not (yield from reader.accept(",")):
                break
        yield from reader.accept(closing)
        emit(closing)

    def _key(self, reader: Reader, emit: Emit) -> Reading[None]:
        if (yield from reader.accept(self.quote)):
            yield from self._string(reader, emit)
            yield from reader.accept(":")
        else:
            key, _ = yield from text_until(reader, ":")
            emit(json.dumps(key.strip(), ensure_ascii=False))
        emit(": ")

    def _string(self, reader: Reader, emit: Emit) -> Reading[None]:
        emit('"')
        escaped = lambda text: emit(json.dumps(text, ensure_ascii=False)[1:-1])  # noqa: E731
        yield from reader.until(self.quote, emit=escaped)
        emit('"')


def _ignore(text: str) -> None:
    """What follows the object belongs to nothing."""
