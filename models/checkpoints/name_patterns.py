"""Patterns by which an adapter's file names matrices, as PEFT takes them: a regular expression for
the end of a name, from its beginning or from behind a dot.

    "q_proj"    "self_attn.(q|k)_proj"    "layers\\.[0-7]\\..*_proj"    "^model.layers.0.mlp.up"

A file is a stranger's, and `re` takes for ever with some patterns, for it tries one way through
after the other. Here all ways are followed at once, as a set of places in the name, and the steps
of a file are counted. Owns what matches; knows no ranks and no files.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from re import _compiler, _parser  # type: ignore[attr-defined]  # as hypothesis reads regexes
from typing import Any, Generic, TypeVar

MAX_STEPS = 1_000_000  # with all names and patterns of a file: about a second
_PLAIN = re.compile(r"[\w.-]+")  # where nothing repeats `re` has one way only
_ONE_CHARACTER = ("LITERAL", "NOT_LITERAL", "ANY", "IN")
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT")  # greedy or not, the same names match
_BEGINNINGS, _ENDS = ("AT_BEGINNING", "AT_BEGINNING_STRING"), ("AT_END", "AT_END_STRING")

Value = TypeVar("Value")
Places = set[int]  # in a name; 0 is before its first character


class PatternError(ValueError):
    """Which pattern cannot be matched, and why: a clause."""


class NamePatterns(Generic[Value]):
    """Values by patterns, of which the first that matches has the say."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        """Raises PatternError for a pattern that is none, or that looks at more than one character
        at a time."""
        self._patterns = [(text, _matcher(text), value) for text, value in values.items()]
        self._steps = 0

    def of(self, name: str, default: Value) -> Value:
        """What a matrix has; raises PatternError where that takes too long to find."""
        walk = _Walk(name, self._count)
        for text, matches, value in self._patterns:
            try:
                if matches(walk):
                    return value
            except _TooLong:
                raise PatternError(
                    f"{text[:60]!r}, which with those before it takes too long; write names out"
                ) from None
        return default

    def _count(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise _TooLong


class _TooLong(Exception):
    """So many steps were taken as a file may cost."""


class _Unsupported(Exception):
    """A part of a regular expression that needs more than places."""


@dataclass(frozen=True)
class _Walk:
    """A name in which places are found, and who hears of each step."""

    text: str
    step: Callable[[], None]


Matches = Callable[[_Walk], bool]
Follow = Callable[[_Walk, Places], Places]  # from some places to all that a part ends at


def _matcher(pattern: str) -> Matches:
    shown = repr(pattern[:60])
    try:
        if _PLAIN.fullmatch(pattern):
            return partial(_matches_plain, re.compile(rf"(?:.*\.)?{pattern}"))
        parsed = _parser.parse(pattern)
        if parsed.state.flags & ~re.UNICODE:
            raise _Unsupported
        return partial(_matches, _sequence(parsed))
    except RecursionError:
        raise PatternError(f"{shown}, which is nested too deeply") from None
    except _Unsupported:
        raise PatternError(
            f"{shown}, and only characters, sets of them, groups, alternatives, repeats, ^ and $ "
            "are taken"
        ) from None
    except (re.error, OverflowError) as error:
        raise PatternError(f"{shown}, which is no regular expression ({error})") from None


def _matches_plain(pattern: re.Pattern[str], walk: _Walk) -> bool:
    walk.step()
    return pattern.fullmatch(walk.text) is not None


def _matches(follow: Follow, walk: _Walk) -> bool:
    text = walk.text
    begins = {0} | {place + 1 for place, character in enumerate(text) if character == "."}
    return len(text) in follow(walk, begins)


def _sequence(parts: Any) -> Follow:
    follows = [_part(parts, part) for part in parts]

    def follow(walk: _Walk, places: Places) -> Places:
        for each in follows:
            places = each(walk, places)
        return places

    return follow


def _part(parsed: Any, part: Any) -> Follow:
    kind, value = str(part[0]), part[1]
    if kind in _ONE_CHARACTER:
        test = _compiler.compile(_parser.SubPattern(parsed.state, [part])).fullmatch
        return partial(_one_character, test)
    if kind in _REPEATS:
        least, most, parts = value
        return partial(_repeated, _sequence(parts), least, most)
    if kind == "BRANCH":
        return partial(_either, [_sequence(each) for each in value[1]])
    if kind == "SUBPATTERN" and not (value[1] or value[2]):  # flags of its own
        return _sequence(value[3])
    if kind == "AT" and str(value) in _BEGINNINGS:
        return lambda walk, places: places & {0}
    if kind == "AT" and str(value) in _ENDS:
        return lambda walk, places: places & {len(walk.text)}
    raise _Unsupported


def _one_character(test: Callable[[str], Any], walk: _Walk, places: Places) -> Places:
    walk.step()
    text = walk.text
    return {place + 1 for place in places if place < len(text) and test(text[place])}


def _either(follows: list[Follow], walk: _Walk, places: Places) -> Places:
    walk.step()
    return set[int]().union(*(follow(walk, places) for follow in follows))


def _repeated(follow: Follow, least: int, most: int, walk: _Walk, places: Places) -> Places:
    """A turn after the other, until there is no place that was not found before."""
    for _ in range(least):
        before, places = places, follow(walk, places)
        if places == before:
            break
    found, turn = set(places), 0
    while places and turn < most - least:
        walk.step()
        places = follow(walk, places) - found
        found |= places
        turn += 1
    return found
