"""A text that grows, and reading from it.

A grammar is a generator that reads through `yield from`; it is suspended where the text does not
say yet how it goes on, and resumed when there is more. After the end it is never suspended.
What was read is forgotten, so each character is looked at a bounded number of times.
"""

import re
from collections.abc import Callable, Generator
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")
Reading = Generator[None, None, T]
Emit = Callable[[str], None]

_NO_BLANK = re.compile(r"\S")
_IN_VALUE = re.compile(r'["{}\[\]]')
_STRING_END = re.compile(r'["\\]')
_SCALAR_END = re.compile(r"[\s,\]}<\[{]")


class Reader:
    """The part of a text that nobody has read."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._ended = False
        self._record: list[str] | None = None

    def feed(self, text: str) -> None:
        """The text goes on."""
        self._text = self._text[self._at :] + text
        self._at = 0

    def end(self) -> None:
        """Nothing follows."""
        self._ended = True

    def record(self) -> None:
        """Keep what is read from here on, to give it back as it was."""
        self._record = []

    def recorded(self) -> str:
        """What was read since `record`; keeps no more."""
        text = "".join(self._record or ())
        self._record = None
        return text

    def one(self) -> Reading[str]:
        """Read one character; "" at the end."""
        while self._at >= len(self._text):
            if self._ended:
                return ""
            yield
        return self._take(self._at + 1)

    def blanks(self) -> Reading[str]:
        """Read blanks; gives the character after them, not read yet."""
        while True:
            match = _NO_BLANK.search(self._text, self._at)
            if match:
                self._take(match.start())
                return match[0]
            self._take(len(self._text))
            if self._ended:
                return ""
            yield

    def accept(self, *literals: str) -> Reading[str | None]:
        """Read the one of `literals` with which the text goes on; the longest, if several do."""
        while True:
            fitting = [x for x in literals if self._text.startswith(x, self._at)]
            rest = self._text[self._at : self._at + max(map(len, literals))]
            undecided = any(len(x) > len(rest) and x.startswith(rest) for x in literals)
            if not undecided or self._ended:
                break
            yield
        if not fitting:
            return None
        found = max(fitting, key=len)
        self._take(self._at + len(found))
        return found

    def begins(self, *literals: str) -> Reading[bool]:
        """Whether the text goes on with one of `literals`, which is not read."""
        longest = max(map(len, literals))
        while True:
            rest = self._text[self._at : self._at + longest]
            if rest.startswith(literals):
                return True
            if self._ended or not any(literal.startswith(rest) for literal in literals):
                return False
            yield

    def until(self, *literals: str, emit: Emit, keep: bool = False) -> Reading[str | None]:
        """Hand on the text up to the first of `literals`, which is read too unless `keep`.

        Gives the literal, or None if the text ends before one.
        """
        pattern, longest = _any_of(literals)
        while True:
            match = pattern.search(self._text, self._at)
            if match:
                emit(self._take(match.start()))
                if not keep:
                    self._take(match.end())
                return match[0]
            held = 0 if self._ended else self._begun(literals, longest)
            emit(self._take(len(self._text) - held))
            if self._ended:
                return None
            yield

    def rest(self, emit: Emit) -> Reading[None]:
        """Hand on all that follows."""
        while True:
            emit(self._take(len(self._text)))
            if self._ended:
                return
            yield

    def json_value(self, emit: Emit) -> Reading[bool]:
        """Hand on the text of a JSON value as it is written; whether it is complete."""
        first = yield from self.blanks()
        if first == '"':
            return (yield from self._string(emit))
        if first in ("{", "["):
            return (yield from self._nested(emit))
        return (yield from self._scalar(emit))

    def _string(self, emit: Emit) -> Reading[bool]:
        emit(self._take(self._at + 1))
        while True:
            match = _STRING_END.search(self._text, self._at)
            if match is None:
                emit(self._take(len(self._text)))
            elif match[0] == '"':
                emit(self._take(match.end()))
                return True
            elif match.end() < len(self._text):  # a backslash and what it escapes
                emit(self._take(match.end() + 1))
                continue
            if self._ended:
                emit(self._take(len(self._text)))
                return False
            yield

    def _nested(self, emit: Emit) -> Reading[bool]:
        depth = 0
        while True:
            match = _IN_VALUE.search(self._text, self._at)
            if match is None:
                emit(self._take(len(self._text)))
                if self._ended:
                    return False
                yield
                continue
            emit(self._take(match.start()))
            if match[0] == '"':
                if not (yield from self._string(emit)):
                    return False
                continue
            emit(self._take(match.end()))
            depth += 1 if match[0] in "{[" else -1
            if depth == 0:
                return True

    def _scalar(self, emit: Emit) -> Reading[bool]:
        size = 0
        while True:
            match = _SCALAR_END.search(self._text, self._at)
            end = match.start() if match else len(self._text)
            size += end - self._at
            emit(self._take(end))
            if match or self._ended:
                return size > 0
            yield

    def _begun(self, literals: tuple[str, ...], longest: int) -> int:
        """How many characters at the end may be the beginning of a literal."""
        for size in range(min(longest - 1, len(self._text) - self._at), 0, -1):
            tail = self._text[len(self._text) - size :]
            if any(literal.startswith(tail) for literal in literals):
                return size
        return 0

    def _take(self, end: int) -> str:
        text = self._text[self._at : end]
        self._at = end
        if self._record is not None:
            self._record.append(text)
        return text


@lru_cache
def _any_of(literals: tuple[str, ...]) -> tuple[re.Pattern[str], int]:
    longest_first = sorted(literals, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))), len(longest_first[0])


def collected(read: Callable[[Emit], Reading[T]]) -> Reading[tuple[str, T]]:
    """What `read` hands on, as one text, and what it gives."""
    pieces: list[str] = []
    result = yield from read(pieces.append)
    return "".join(pieces), result


def text_until(
    reader: Reader, *literals: str, keep: bool = False
) -> Reading[tuple[str, str | None]]:
    """The text up to the first of `literals`, and which that is."""
    return (yield from collected(lambda emit: reader.until(*literals, emit=emit, keep=keep)))
