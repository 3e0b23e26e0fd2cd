"""Stop strings in a text that arrives in pieces, wherever the pieces are cut.

Owns the search (Aho and Corasick, CACM 18(6), 1975) and the text that is held back because it
may yet become a stop string. Knows nothing of tokens.

Of all occurrences the one that ends first counts; of those that end together, the longest, so
that no part of any stop string is left in the text. Each character is looked at once, whatever
the number of stop strings, and never more characters are held back than could begin one.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple


class Found(NamedTuple):
    """A stop string was found: `text` is the last text to emit, `stop` the string."""

    text: str
    stop: str


class StopStrings:
    """The automaton of some non-empty strings; immutable, shared by all that watch for them.

    State s stands for the longest end of the text that begins a stop string; `depth[s]` is its
    length. `ends[s]` is the longest stop string that ends there, or "".
    """

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


class StopWatcher:
    """One text, watched for stop strings."""

    def __init__(self, stops: StopStrings, *, include_stop: bool = False) -> None:
        self._stops = stops
        self._include_stop = include_stop
        self._state = 0
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
            if may_stop and (stop := stops.ends[state]):
                self._held = ""
                end = place + 1
                return Found(text[: end if self._include_stop else end - len(stop)], stop)
        self._state = state
        cut = len(text) - stops.depth[state]
        self._held = text[cut:]
        return text[:cut]

    def flush(self) -> str:
        """The text held back, when no more will come."""
        held, self._held, self._state = self._held, "", 0
        return held
