"""Regexes that end a text which arrives a character at a time: `stop_regex`, as SGLang has it.

Owns the translation of Python's regexes into an automaton and its simulation (Thompson, CACM 11(6),
1968), which looks at each character once, in at most `MAX_STATES` steps, whatever the pattern and
the text. It knows for each state how long ago the match that is there began, so a watcher
(`engine.stopping.stop`) holds back exactly what may yet become a match. RE2 takes linear time too,
but says nothing of beginnings, and has to look at all that is held back again with each token.

SGLang searches the end of the text after each token. Here the match that ends first counts, and of
those the longest, wherever tokens are cut; so `\\d+` ends a text with its first digit. Of a match
longer than `MAX_HELD` characters only so many are held back, and cut off.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain
from re import _parser  # type: ignore[attr-defined]  # as hypothesis reads regexes
from typing import Any, NamedTuple

from engine.errors import RequestError

MAX_STATES = 500
MAX_HELD = 1024
MAX_CASELESS = 2**17  # characters in ranges without case, each of which `re.compile` looks at
_FIELD = "stop_regex"
_CHARACTERS = 64  # of which it is remembered what goes on with them
_ONE_CHARACTER = re.IGNORECASE | re.DOTALL | re.ASCII  # flags that say what a character matches
_TYPES = re.ASCII | re.UNICODE  # of which a group has the one that it names
_LAST_LOOKED_AT = 0xFFFF
_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d", "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s", "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w", "CATEGORY_NOT_WORD": r"\W",
}  # fmt: skip
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT")  # greedy or not, the same texts match

Test = Callable[[str], Any]  # whether a character matches, as truth


class _Node(NamedTuple):
    """Goes on to `out` with a character that passes the `test`; without one, at once.

    `pattern`: the regex that has matched here.
    """

    test: Test | None
    out: tuple[int, ...]
    pattern: str | None = None


class Matches(NamedTuple):
    """Where all regexes stand after a character: state -> how many characters ago its match began,
    the oldest first; and what ends here, the longest."""

    states: dict[int, int]
    ended: tuple[int, str] | None = None


class StopRegexes:
    """The automaton of some regexes; immutable, shared by all that watch for them."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Raises `RequestError` for a pattern that is none, too large, or matches no characters."""
        self._nodes: list[_Node] = []
        self._tests: dict[tuple[Any, ...], Test] = {}  # of parts that are written again
        self._caseless = 0
        fresh: dict[int, int] = {}
        start = self._add(None, *[self._compiled(pattern) for pattern in patterns])
        empty = self._enter(fresh, set(), start, 0)
        if empty is not None:
            raise RequestError(
                f"{_FIELD} {empty[:40]!r} matches where there is nothing: it would end every text.",
                _FIELD,
            )
        self.begin = Matches({})
        self._passing = lru_cache(_CHARACTERS)(self._passed)
        self._fresh = fresh  # states of a match that begins

    def step(self, matches: Matches, character: str) -> Matches:
        """Where they stand after one more character."""
        nodes, passes = self._nodes, self._passing(character)
        states: dict[int, int] = {}
        seen: set[int] = set()
        ended = None
        for state, age in chain(matches.states.items(), self._fresh.items()):  # the oldest first
            if state not in passes:
                continue
            next_state = nodes[state].out[0]
            if next_state in passes or nodes[next_state].test is not None:
                states.setdefault(next_state, min(age + 1, MAX_HELD))
                continue
            pattern = self._enter(states, seen, next_state, min(age + 1, MAX_HELD))
            if pattern is not None and ended is None:
                ended = min(age + 1, MAX_HELD), pattern
        return Matches(states, ended)

    def pending(self, matches: Matches) -> int:
        """How many characters at the end may be the beginning of a match."""
        return next(iter(matches.states.values()), 0)

    def ended(self, matches: Matches) -> tuple[int, str] | None:
        """Characters of the longest match that ends here, and its regex."""
        return matches.ended

    def _passed(self, character: str) -> frozenset[int]:
        """The states that go on with a character."""
        tests = enumerate(node.test for node in self._nodes)
        return frozenset(state for state, test in tests if test is not None and test(character))

    def _enter(self, states: dict[int, int], seen: set[int], state: int, age: int) -> str | None:
        """Put `state`, or those behind it that wait for a character, into `states`; returns the
        pattern that ends there."""
        ended: str | None = None
        stack = [state]
        while stack:
            state = stack.pop()
            if state in seen:
                continue
            seen.add(state)
            node = self._nodes[state]
            ended = node.pattern if ended is None else ended
            if node.test is None:
                stack += node.out
            else:
                states.setdefault(state, age)
        return ended

    def _compiled(self, pattern: str) -> int:
        """The first state of a pattern."""
        shown = f"{_FIELD} {pattern[:40]!r}"
        try:
            parsed = _parser.parse(pattern)
            end = self._add(None, pattern=pattern)
            return self._sequence(parsed, end, parsed.state.flags)
        except (re.error, ValueError, OverflowError) as error:
            raise RequestError(f"{shown} is no regex: {error}.", _FIELD) from None
        except RecursionError:
            raise RequestError(f"{shown} is nested too deeply.", _FIELD) from None

    def _add(self, test: Test | None, *out: int, pattern: str | None = None) -> int:
        if len(self._nodes) >= MAX_STATES:
            raise RequestError(
                f"{_FIELD} is too large: written out, repeats included, it may have {MAX_STATES} "
                "parts.",
                _FIELD,
            )
        self._nodes.append(_Node(test, out, pattern))
        return len(self._nodes) - 1

    def _sequence(self, parts: Sequence[Any], out: int, flags: int) -> int:
        """States for `parts`, one after the other, then `out`; returns the first."""
        for name, value in reversed(list(parts)):
            out = self._part(str(name), value, out, flags)
        return out

    def _part(self, name: str, value: Any, out: int, flags: int) -> int:
        if name in _REPEATS:
            return self._repeat(value, out, flags)
        if name == "BRANCH":
            return self._add(None, *(self._sequence(each, out, flags) for each in value[1]))
        if name == "SUBPATTERN":
            _, added, removed, parts = value
            flags = flags & ~_TYPES if added & _TYPES else flags
            return self._sequence(parts, out, (flags | added) & ~removed)
        if name == "LITERAL" and not flags & re.IGNORECASE:
            return self._add(chr(value).__eq__, out)
        return self._add(self._test(name, value, re.RegexFlag(flags) & _ONE_CHARACTER), out)

    def _test(self, name: str, value: Any, flags: re.RegexFlag) -> Test:
        key = name, tuple(value) if name == "IN" else value, flags
        if key not in self._tests:
            if name == "IN" and flags & re.IGNORECASE:
                self._caseless += _ranged(value)
            if self._caseless > MAX_CASELESS:
                raise RequestError(
                    f"{_FIELD} may have ranges of {MAX_CASELESS} characters in all where case "
                    "does not matter; put larger ones into (?-i:...).",
                    _FIELD,
                )
            self._tests[key] = re.compile(_character(name, value), flags).fullmatch
        return self._tests[key]

    def _repeat(self, value: Any, out: int, flags: int) -> int:
        least, most, parts = value
        first = out
        if most == _parser.MAXREPEAT:
            first = self._add(None)
            self._nodes[first] = _Node(None, (self._sequence(parts, first, flags), out))
            most = least
        for _ in range(most - least):
            first = self._add(None, self._sequence(parts, first, flags), out)
        for _ in range(least):
            before, first = first, self._sequence(parts, first, flags)
            if first == before:  # of nothing, however often
                break
        return first


def _character(name: str, value: Any) -> str:
    """The regex of one character that a part of a parsed one stands for."""
    match name:
        case "LITERAL":
            return re.escape(chr(value))
        case "NOT_LITERAL":
            return f"[^{re.escape(chr(value))}]"
        case "ANY":
            return "."
        case "IN":
            return f"[{''.join(_member(str(kind), each) for kind, each in value)}]"
    raise RequestError(
        f"{_FIELD} takes no anchors (^, $, \\b), look-around, back-references or atomic groups: "
        "each character is looked at once, when it is written.",
        _FIELD,
    )


def _ranged(members: Iterable[tuple[Any, Any]]) -> int:
    """How many characters ranges have of those that are looked at one by one."""
    ranges = [value for kind, value in members if str(kind) == "RANGE"]
    return sum(max(0, min(high, _LAST_LOOKED_AT) + 1 - low) for low, high in ranges)


def _member(kind: str, value: Any) -> str:
    match kind:
        case "NEGATE":
            return "^"
        case "LITERAL":
            return re.escape(chr(value))
        case "RANGE":
            low, high = value
            return f"{re.escape(chr(low))}-{re.escape(chr(high))}"
    return _CATEGORIES[str(value)]
