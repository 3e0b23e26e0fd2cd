"""Reads GBNF, llama.cpp's notation of grammars, which xgrammar calls EBNF.

    root ::= "yes" | "no" tail{0,3}      # a comment
    tail ::= [ \\t]* [^a-z0-9] .
           | (root "x")+

Rules end where the next one begins, so alternatives may stand on lines of their own. Owns the
syntax and its errors; what the rules mean is `engine.grammar.ebnf`'s.
"""

import re
from dataclasses import dataclass

from engine.errors import RequestError

MAX_DEPTH = 100  # of parentheses
MAX_REPEATS = 10_000
_TOKEN = re.compile(
    r"""(?P<space>(?:\s|\#[^\n]*)+)
    |(?P<define>[A-Za-z_][\w.-]*\s*::=)
    |(?P<name>[A-Za-z_][\w.-]*)
    |(?P<text>"(?:[^"\\\n]|\\.)*")
    |(?P<set>\[(?:[^\]\\\n]|\\.)*\])
    |(?P<repeat>[*+?]|\{\s*\d+\s*(?:,\s*\d*\s*)?\})
    |(?P<sign>[|().])
    """,
    re.VERBOSE,
)
_ESCAPE = re.compile(
    r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))|(.)", re.DOTALL
)
_LETTERS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "b": "\b", "a": "\a", "0": "\0"}


@dataclass(frozen=True, slots=True)
class Text:
    """These characters, one after another."""

    text: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """One character of some ranges, or of none of them."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Name:
    """What the rule of this name stands for."""

    name: str


@dataclass(frozen=True, slots=True)
class Sequence:
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Choice:
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`most` None is without end."""

    part: "Node"
    least: int
    most: int | None


Node = Text | OneOf | Name | Sequence | Choice | Repeat
ANY = OneOf((("\x00", "\U0010ffff"),))


def parse(text: str) -> dict[str, Node]:
    """Rules by name, in order; raises `RequestError` naming the place that is wrong."""
    return _Parser(text).rules()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._place = 0

    def rules(self) -> dict[str, Node]:
        rules: dict[str, Node] = {}
        while self._place < len(self._tokens):
            kind, said, start = self._take()
            if kind != "define":
                raise self._wrong("expected a rule, name ::= ...", start)
            name = said[:-3].strip()
            if name in rules:
                raise self._wrong(f"rule {name!r} is defined twice", start)
            rules[name] = self._choice(0)
            if self._kind() not in ("define", "end"):
                raise self._wrong("unexpected " + self._tokens[self._place][1], self._start())
        return rules

    def _choice(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self._wrong(f"more than {MAX_DEPTH} parentheses within each other", self._start())
        parts = [self._sequence(depth)]
        while self._said("|"):
            self._place += 1
            parts.append(self._sequence(depth))
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def _sequence(self, depth: int) -> Node:
        parts: list[Node] = []
        while self._kind() in ("name", "text", "set") or self._said("(") or self._said("."):
            part = self._part(depth)
            while self._kind() == "repeat":
                part = self._repeat(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _part(self, depth: int) -> Node:
        kind, said, start = self._take()
        if kind == "name":
            return Name(said)
        if kind == "text":
            return Text("".join(self._characters(said[1:-1], start)))
        if kind == "set":
            return self._set(said[1:-1], start)
        if said == ".":
            return ANY
        inner = self._choice(depth + 1)
        if not self._said(")"):
            raise self._wrong("a parenthesis is not closed", start)
        self._place += 1
        return inner

    def _repeat(self, part: Node) -> Node:
        _, said, start = self._take()
        if said in "*+?":
            return Repeat(part, int(said == "+"), 1 if said == "?" else None)
        least, comma, most = said[1:-1].partition(",")
        low = int(least[:9])
        high = low if not comma else int(most[:9]) if most.strip() else None
        if max(low, high or 0) > MAX_REPEATS or (high is not None and high < low):
            raise self._wrong(f"repetitions must be from 0 to {MAX_REPEATS}, in order", start)
        return Repeat(part, low, high)

    def _set(self, body: str, start: int) -> OneOf:
        negated = body.startswith("^")
        characters = self._characters(body[negated:], start)
        plain = [match[0] == "-" for match in _ESCAPE.finditer(body[negated:])]
        ranges, place = [], 0
        while place < len(characters):
            first = last = characters[place]
            if place + 2 < len(characters) and plain[place + 1]:
                last, place = characters[place + 2], place + 2
            if last < first:
                raise self._wrong(f"the range {first}-{last} is empty", start)
            ranges.append((first, last))
            place += 1
        if not ranges:
            raise self._wrong("a set of characters is empty", start)
        return OneOf(tuple(ranges), negated)

    def _characters(self, body: str, start: int) -> list[str]:
        """The characters that are meant, one each for an escape."""
        found = []
        for match in _ESCAPE.finditer(body):
            code = match[1] or match[2] or match[3]
            if (code and int(code, 16) > 0x10FFFF) or (code and 0xD800 <= int(code, 16) < 0xE000):
                raise self._wrong(f"{match[0]} is no character", start)
            letter = match[4]
            if letter and letter.isalnum() and letter not in _LETTERS:
                raise self._wrong(f"there is no escape {match[0]}", start)
            found.append(
                chr(int(code, 16)) if code else _LETTERS.get(letter, letter) if letter else match[5]
            )
        return found

    def _take(self) -> tuple[str, str, int]:
        self._place += 1
        return self._tokens[self._place - 1]

    def _kind(self) -> str:
        return self._tokens[self._place][0] if self._place < len(self._tokens) else "end"

    def _said(self, sign: str) -> bool:
        return self._kind() == "sign" and self._tokens[self._place][1] == sign

    def _start(self) -> int:
        return self._tokens[self._place][2] if self._place < len(self._tokens) else len(self._text)

    def _wrong(self, what: str, start: int) -> RequestError:
        return _error(self._text, what, start)


def _tokens(text: str) -> list[tuple[str, str, int]]:
    """Kind, text and place of each; space and comments are left out."""
    found, place = [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise _error(text, "this is no part of a grammar", place)
        if match.lastgroup != "space":
            found.append((match.lastgroup or "", match[0], place))
        place = match.end()
    return found


def _error(text: str, what: str, start: int) -> RequestError:
    line = text.count("\n", 0, start) + 1
    return RequestError(f"line {line}: {what}, at {text[start : start + 20]!r}")
