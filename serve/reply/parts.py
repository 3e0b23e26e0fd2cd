"""A reply as parts that begin, grow and end: what APIs with blocks or items show.

Reasoning, Reasoning, Content, CallStart, Arguments ──▶ begin grow grow end, begin grow end, ...
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from serve.reply.events import Arguments, CallStart, Content, Event, Reasoning

PartKind = Literal["reasoning", "text", "call"]


@dataclass(slots=True)
class Part:
    """One part; a call has an id and a name, and its text is the JSON of its arguments."""

    index: int
    kind: PartKind
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """So far."""
        return "".join(self.pieces)


@dataclass(slots=True)
class Begin:
    """A part begins."""

    part: Part


@dataclass(slots=True)
class Grow:
    """A part goes on with `text`."""

    part: Part
    text: str


@dataclass(slots=True)
class End:
    """A part is complete."""

    part: Part


Change = Begin | Grow | End


class Parts:
    """The parts of one reply so far; the last one is open until the next begins, or `end`."""

    def __init__(self) -> None:
        self.all: list[Part] = []
        self._open = False

    def add(self, events: Iterable[Event]) -> Iterator[Change]:
        """What `events` change."""
        for event in events:
            match event:
                case CallStart(_, call_id, name):
                    yield from self._begin("call", call_id, name)
                    continue
                case Content():
                    yield from self._continue("text")
                case Reasoning():
                    yield from self._continue("reasoning")
                case Arguments():
                    pass
            part = self.all[-1]
            part.pieces.append(event.text)
            yield Grow(part, event.text)

    def end(self) -> Iterator[Change]:
        """The reply has ended."""
        if self._open:
            self._open = False
            yield End(self.all[-1])

    def _continue(self, kind: PartKind) -> Iterator[Change]:
        if not self._open or self.all[-1].kind != kind:
            yield from self._begin(kind)

    def _begin(self, kind: PartKind, call_id: str = "", name: str = "") -> Iterator[Change]:
        yield from self.end()
        part = Part(len(self.all), kind, call_id, name)
        self.all.append(part)
        self._open = True
        yield Begin(part)
