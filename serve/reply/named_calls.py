"""Calls of a name, a mark, and the arguments as JSON.

[TOOL_CALLS]get_weather[ARGS]{"city": "Rome"}
<|tool_call_begin|>get_weather<|tool_call_argument_begin|>{"city": "Rome"}<|tool_call_end|>
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serve.reply.bound import (
    BLANKS,
    CallsOrAnswer,
    Part,
    Wish,
    const,
    either,
    in_order,
    json_part,
    tag,
    tagged,
)
from serve.reply.events import Output
from serve.reply.json_calls import arguments_until
from serve.reply.reader import Reader, Reading, text_until
from serve.reply.reply import Grammar

MAX_NAME = 256  # characters; a longer one is no name
_OBJECT = "{"
_ID: Part = {"type": "regex", "pattern": "[0-9A-Za-z_-]{1,40}"}


@dataclass(frozen=True)
class NamedCalls:
    """`begin` name `then` arguments `end`; marks around all calls are in `around`.

    What stands between two of `then`, or between one and the arguments, is not read.
    """

    begin: tuple[str, ...]
    then: tuple[str, ...]
    end: tuple[str, ...] = ()
    around: tuple[str, ...] = ()
    skip_to: str = ""  # the last mark before the name
    native_id: bool = False  # the name is the end of an id, functions.get_weather:0
    before_name: str = ""  # a regex of what stands before `skip_to`
    opening: str = ""  # what stands between the last of `then` and the arguments

    def chosen(self) -> Grammar:
        """Calls begin with a mark."""
        return CallsOrAnswer(self, (*self.begin, *self.around))

    def bound(self, wish: Wish) -> Part:
        """The marks, a tool's name, and its arguments between them."""
        return tagged(wish, self.tags(wish), self.around)

    def tags(self, wish: Wish) -> list[Part]:
        """Each way to begin a call."""
        calls = either(*(self._written(name, schema) for name, schema in wish.tools.items()))
        return [tag(begin, calls) for begin in self.begin]

    def _written(self, name: str, schema: Any) -> Part:
        """One tool's call; of several marks behind its name, those before the last are optional."""
        then, parts = self.then[-1] + self.opening, []
        if self.skip_to:
            parts += [{"type": "regex", "pattern": self.before_name}, const(self.skip_to)]
        if self.native_id:
            number = {"type": "regex", "pattern": ":[0-9]{1,4}"}
            parts += [const(f"functions.{name}"), number, const(then)]
        else:
            ids = [in_order(const(name + mark), _ID, const(then)) for mark in self.then[:-1]]
            parts.append(either(const(name + then), *ids))
        parts.append(json_part(schema))
        for end in self.end:
            parts += [BLANKS, const(end)]
        return in_order(*parts)

    def __call__(self, reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
        marks = (*self.begin, *self.around)
        while mark := (yield from reader.until(*marks, emit=out.content)):
            if mark in self.begin:
                yield from self.call(reader, out, mark)

    def call(self, reader: Reader, out: Output, mark: str) -> Reading[None]:
        """What follows `mark`: a call, or text that looked like one."""
        if self.skip_to:
            yield from reader.until(self.skip_to, *self.end[-1:], emit=_ignore)
        stops = (*self.then, _OBJECT)
        head, stop = yield from text_until(reader, *stops, keep=True)
        name = head.strip()
        if stop is None or not name or len(name) > MAX_NAME or "\n" in name:
            out.content(mark + head)
            return
        while stop and stop != _OBJECT:  # marks, and what stands between them
            yield from reader.accept(stop)
            _, stop = yield from text_until(reader, *stops, *self.end[-1:], keep=True)
            if stop in self.end:
                break
        out.begin_call(*self._named(name))
        yield from arguments_until(reader, out.arguments)
        yield from self._finish(reader)

    def _named(self, name: str) -> tuple[str, str | None]:
        if not self.native_id:
            return name, None
        return name.removeprefix("functions.").rsplit(":", 1)[0], name

    def _finish(self, reader: Reader) -> Reading[None]:
        for end in self.end:
            yield from reader.blanks()
            yield from reader.accept(end)


def _ignore(text: str) -> None:
    """What comes before the name: a type, or an id of the model's own making."""
