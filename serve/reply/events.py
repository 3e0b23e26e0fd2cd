"""What a reply consists of, in the order in which it is found.

`Output` gathers the events of a grammar. It knows which blanks are the format's and which are the
model's: those around reasoning and calls separate the parts and belong to none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_hex

MakeId = Callable[[str, int], str]
"""The id of a call, from its name and its number in the reply."""


@dataclass(slots=True)
class Content:
    """A piece of the answer."""

    text: str


@dataclass(slots=True)
class Reasoning:
    """A piece of what the model thought before it answered."""

    text: str


@dataclass(slots=True)
class CallStart:
    """A call begins; its arguments follow."""

    index: int
    id: str
    name: str


@dataclass(slots=True)
class Arguments:
    """A piece of the JSON text of a call's arguments."""

    index: int
    text: str


Event = Content | Reasoning | CallStart | Arguments


def openai_id(name: str, index: int) -> str:
    """An id as OpenAI's look."""
    return f"call_{token_hex(12)}"


class Output:
    """The events that were found and not yet taken."""

    def __init__(self, make_id: MakeId = openai_id) -> None:
        self._make_id = make_id
        self._events: list[Event] = []
        self._blanks = ""  # at the end of the answer so far
        self._after_part = False  # blanks separate what comes from what was before it
        self.num_calls = 0

    def content(self, text: str) -> None:
        """A piece of the answer; blanks at its end wait for what comes after them."""
        if self._after_part:
            text = text.lstrip()
        kept = text.rstrip()
        if kept:
            self._events.append(Content(self._blanks + kept))
            self._blanks, self._after_part = text[len(kept) :], False
        else:
            self._blanks += text

    def reasoning(self, text: str) -> None:
        """A piece of reasoning."""
        self._drop_blanks()
        if text:
            self._events.append(Reasoning(text))

    def begin_call(self, name: str, call_id: str | None = None) -> None:
        """A call of the tool `name`."""
        self._drop_blanks()
        index = self.num_calls
        self.num_calls += 1
        self._events.append(CallStart(index, call_id or self._make_id(name, index), name))

    def arguments(self, text: str) -> None:
        """A piece of the newest call's arguments."""
        if text:
            self._events.append(Arguments(self.num_calls - 1, text))

    def end(self) -> None:
        """The reply has ended: blanks at its end are the answer's own."""
        if self._blanks:
            self._events.append(Content(self._blanks))
            self._blanks = ""

    def take(self) -> list[Event]:
        """What was found since the last time, neighbours of a kind as one."""
        events, self._events = self._events, []
        return merged(events)

    def _drop_blanks(self) -> None:
        self._blanks, self._after_part = "", True


def merged(events: list[Event]) -> list[Event]:
    """`events` with neighbouring pieces of the same thing joined."""
    joined: list[Event] = []
    pieces: list[str] = []
    for event in events:
        last = joined[-1] if joined else None
        if not isinstance(event, CallStart) and _continues(last, event):
            pieces.append(event.text)
            continue
        _close(last, pieces)
        joined.append(event)
        pieces = [] if isinstance(event, CallStart) else [event.text]
    _close(joined[-1] if joined else None, pieces)
    return joined


def _continues(last: Event | None, event: Event) -> bool:
    if isinstance(event, Arguments):
        return isinstance(last, Arguments) and last.index == event.index
    return type(last) is type(event)


def _close(last: Event | None, pieces: list[str]) -> None:
    if last is not None and not isinstance(last, CallStart):
        last.text = "".join(pieces)
