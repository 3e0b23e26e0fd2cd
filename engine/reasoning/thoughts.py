"""Which of a reply's tokens are reasoning: the marks around it, found in bytes, token by token.

A mark may be one special token or several plain ones, cut anywhere, so that ids alone do not show
it. The engine counts with this against a budget, the front for `usage`. Knows no request.

    hm , o k </ think >  Rome        marks <think> </think>, open when the reply begins
    1  2 3 4 -  -     -              four tokens of reasoning; a token counts by its first byte
"""

from collections.abc import Callable, Iterable
from enum import Enum, auto

import msgspec

TokenBytes = Callable[[int], bytes]


class ThoughtMarks(msgspec.Struct, frozen=True, kw_only=True):
    """How one reply is marked.

    `is_open`: it begins within reasoning. `answer`: what the answer begins with, in formats where
    reasoning may follow on reasoning; in others, which have none, reasoning is what a reply begins
    with or does not have, and its end is final.
    """

    begin: str
    ends: tuple[str, ...]
    is_open: bool = False
    answer: str = ""


class _State(Enum):
    BEFORE = auto()  # the first mark may still come
    OPEN = auto()
    BETWEEN = auto()  # another beginning may come, or the answer
    DONE = auto()


class Thoughts:
    """The tokens of one reply so far."""

    def __init__(self, marks: ThoughtMarks, token_bytes: TokenBytes) -> None:
        self._marks = marks
        self._bytes = token_bytes
        self._begin = marks.begin.encode()
        self._answer = marks.answer.encode()
        self._ends = tuple(end.encode() for end in marks.ends)
        self._state = _State.BETWEEN if marks.answer else _State.BEFORE
        self._count = 0  # of tokens that are reasoning for certain
        self._text = b""  # what may be a part of a mark
        self._starts: list[int] = []  # where the tokens of `_text` begin

    @property
    def num_tokens(self) -> int:
        """Tokens of reasoning, in [0, inf); the beginning of an end mark counts until it is one."""
        return self._count + (len(self._starts) if self.is_open else 0)

    @property
    def is_open(self) -> bool:
        """Whether the next token is reasoning, unless it makes a mark."""
        before = self._state is _State.BEFORE and self._marks.is_open
        return before or self._state is _State.OPEN

    @property
    def ended(self) -> bool:
        """Whether no reasoning can follow."""
        return self._state is _State.DONE

    def extend(self, token_ids: Iterable[int]) -> None:
        """The reply goes on."""
        for token_id in token_ids:
            if self._state is _State.DONE:
                return
            self._starts.append(len(self._text))
            self._text += self._bytes(token_id)
            while self._find_mark():
                pass

    def _find_mark(self) -> bool:
        """Read on to the next mark; False if more text is needed."""
        match self._state:
            case _State.BEFORE:
                return self._at_the_beginning()
            case _State.OPEN:
                return self._to(dict.fromkeys(self._ends, self._after_end), counts=True)
            case _State.BETWEEN:
                return self._to({self._begin: _State.OPEN, self._answer: _State.DONE}, counts=False)
        return False

    @property
    def _after_end(self) -> _State:
        return _State.BETWEEN if self._answer else _State.DONE

    def _at_the_beginning(self) -> bool:
        """Only blanks may stand before the first mark."""
        text = self._text.lstrip()
        marks = (self._begin, *self._ends)
        for mark in marks:
            if text.startswith(mark):
                self._drop(len(self._text) - len(text) + len(mark))
                self._state = _State.OPEN if mark == self._begin else self._after_end
                return True
        if any(mark.startswith(text) for mark in marks):
            return False
        self._state = _State.OPEN if self._marks.is_open else _State.DONE
        return True

    def _to(self, marks: dict[bytes, _State], *, counts: bool) -> bool:
        """Read up to the first of `marks`; tokens before it are reasoning if it `counts`."""
        found = [(place, mark) for mark in marks if (place := self._text.find(mark)) >= 0]
        if found:
            place, mark = min(found)
            self._count += counts * sum(start < place for start in self._starts)
            self._drop(place + len(mark))
            self._state = marks[mark]
            return True
        kept = len(self._text) - _longest_beginning(self._text, marks)
        self._count += counts * sum(start < kept for start in self._starts)
        self._drop(kept)
        return False

    def _drop(self, size: int) -> None:
        self._text = self._text[size:]
        self._starts = [start - size for start in self._starts if start >= size]


def _longest_beginning(text: bytes, marks: Iterable[bytes]) -> int:
    """How many bytes at the end of `text` may be the beginning of a mark."""
    for size in range(min(len(text), max(map(len, marks)) - 1), 0, -1):
        if any(mark.startswith(text[-size:]) for mark in marks):
            return size
    return 0
