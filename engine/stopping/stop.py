"""Stop strings in a text that arrives in pieces, wherever the pieces are cut.

Owns the search (Aho and Corasick, CACM 18(6), 1975) and the text that is held back because it
may yet become a stop string, or what a regex matches (`engine.stopping.stop_regex`). Knows nothing
of tokens.

Of all occurrences the one that ends first counts; of those that end together, the longest, so
that no part of any stop string is left in the text. Each character is looked at once, whatever
the number of stop strings, and never more characters are held back than could begin one.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol


class Found(NamedTuple):
    """A stop string was found: `text` is the last text to emit, `stop` the string or the regex."""

    text: str
    stop: str


class Stops(Protocol):
    """What a text is watched for; a state is where the watching stands, `begin` at its start."""

    @property
    def begin(self) -> Any:
        """The state before any text."""

    def step(self, state: Any, character: str, /) -> Any:
        """The state after one more character."""

    def pending(self, state: Any, /) -> int:
        """How many characters at the end of the text may yet become a part of what ends it."""

    def ended(self, state: Any, /) -> tuple[int, str] | None:
        """How many characters at the end are to go, and their name; None where nothing ends."""


class Either(NamedTuple):
    """Two kinds of stops at once; of two that end together the longer counts."""

    first: Stops
    second: Stops

    @property
    def begin(self) -> Any:
        return self.first.begin, self.second.begin

    def step(self, state: Any, character: str) -> Any:
        first, second = state
        return self.first.step(first, character), self.second.step(second, character)

    def pending(self, state: Any) -> int:
        return max(self.first.pending(state[0]), self.second.pending(state[1]))

    def ended(self, state: Any) -> tuple[int, str] | None:
        both = self.first.ended(state[0]), self.second.ended(state[1])
        return max(filter(None, both), default=None, key=lambda found: found[0])


class StopStrings:
    """The automaton of some non-empty strings; immutable, shared by all that watch for them.

    State s stands for the longest end of the text that begins a stop string; `depth[s]` is its
    length. `ends[s]` is the longest stop string that ends there, or "".
    """

    begin = 0

    def __init__(self, stops: Iterable[str]) -> None:
        self.next: list[dict[str, int]] = [{}]
        self.fail = [0]
        self.depth = [0]
        self.ends = [""]
        for stop in stops:
            self._insert(stop)
        self._link()

    def _insert(self, stop: str) -> None:
        state = 0
        for character in stop:
            if character not in self.next[state]:
                self.next[state][character] = len(self.next)
                self.next.append({})
                self.fail.append(0)
                self.depth.append(self.depth[state] + 1)
                self.ends.append("")
            state = self.next[state][character]
        self.ends[state] = stop

    def _link(self) -> None:
        """Breadth first, so that the shorter state that `fail` names is complete already."""
        queue = deque(self.next[0].values())
        while queue:
            state = queue.popleft()
            self.ends[state] = self.ends[state] or self.ends[self.fail[state]]
            for character, child in self.next[state].items():
                self.fail[child] = self.step(self.fail[state], character)
                queue.append(child)

    def step(self, state: int, character: str) -> int:
        while state and character not in self.next[state]:
            state = self.fail[state]
        return self.next[state].get(character, 0)

    def pending(self, state: int) -> int:
        return self.depth[state]

    def ended(self, state: int) -> tuple[int, str] | None:
        stop = self.ends[state]
        return (len(stop), stop) if stop else None


class StopWatcher:
    """One text, watched for stop strings."""

    def __init__(self, stops: Stops, *, include_stop: bool = False) -> None:
        self._stops = stops
        self._include_stop = include_stop
        self._state = stops.begin
        self._held = ""

    def feed(self, text: str, *, may_stop: bool = True) -> str | Found:
        """The text that can be emitted now, or the end of it.

        Occurrences that end within a `text` with `may_stop` False do not count.
        """
        stops, state = self._stops, self._state
        held = len(self._held)
        text = self._held + text
        for place in range(held, len(text)):
            state = stops.step(state, text[place])
            if may_stop and (found := stops.ended(state)):
                self._held = ""
                end, (size, stop) = place + 1, found
                return Found(text[: end if self._include_stop else end - size], stop)
        self._state = state
        cut = len(text) - stops.pending(state)
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """The text held back, when no more will come."""
        held, self._held, self._state = self._held, "", self._stops.begin
        return held
