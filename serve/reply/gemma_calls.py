"""Calls as Gemma writes them: an object without quotes, its strings between marks.

<|tool_call>call:get_weather{city:<|"|>Rome<|"|>,days:3}<tool_call|>

JSON within the object is read as well.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve.reply.bound import CallsOrAnswer, Part, Wish, either, tag, tagged
from serve.reply.events import Output
from serve.reply.gemma_grammar import gemma_call
from serve.reply.json_calls import parsed
from serve.reply.named_calls import MAX_NAME
from serve.reply.reader import Emit, Reader, Reading, collected, text_until
from serve.reply.reply import Grammar

_MAX_DEPTH = 64
_CLOSING = {"{": "}", "[": "]"}


@dataclass(frozen=True)
class GemmaCalls:
    """`begin` name object `end`; strings stand between two of `quote`."""

    begin: str
    end: str
    quote: str

    def chosen(self) -> Grammar:
        """Calls begin with a mark."""
        return CallsOrAnswer(self, (self.begin,))

    def bound(self, wish: Wish) -> Part:
        """The marks, and between them what each argument's schema says."""
        calls = (
            gemma_call(name, schema, quote=self.quote, end=self.end)
            for name, schema in wish.tools.items()
        )
        return tagged(wish, [tag(self.begin, either(*calls))])

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
        elif first in _CLOSING:
            yield from reader.json_value(emit)
        elif (yield from reader.accept(self.quote)):
            yield from self._string(reader, emit)
        else:
            emit((yield from self._bare(reader)))

    def _bare(self, reader: Reader) -> Reading[str]:
        """The JSON of a value without marks, which may be JSON itself; of other text a string."""
        begun = yield from _begun(reader)
        text, _ = yield from text_until(reader, ",", "}", "]", self.quote, self.end, keep=True)
        bare = (begun + text).strip()
        is_json = bare == "null" or parsed(bare) is not None
        return bare if is_json else json.dumps(bare, ensure_ascii=False)

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
            key = yield from _begun(reader)
            text, _ = yield from text_until(reader, ":")
            key = (key + text).strip()
            is_json = isinstance(parsed(key), str)
            emit(key if is_json else json.dumps(key, ensure_ascii=False))
        emit(": ")

    def _string(self, reader: Reader, emit: Emit) -> Reading[None]:
        emit('"')
        escaped = lambda text: emit(json.dumps(text, ensure_ascii=False)[1:-1])  # noqa: E731
        yield from reader.until(self.quote, emit=escaped)
        emit('"')


def _begun(reader: Reader) -> Reading[str]:
    """Read the JSON string with which the text goes on, if it does."""
    if (yield from reader.blanks()) != '"':
        return ""
    text, _ = yield from collected(reader.json_value)
    return text


def _ignore(text: str) -> None:
    """What follows the object belongs to nothing."""
