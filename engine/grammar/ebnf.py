"""GBNF (EBNF) as Lark, in which llguidance reads grammars.

Lark has rules and terminals. A terminal is matched as a whole, and greedily: `WORD: /[a-z]+/`
followed by "x" never sees its x. It is also what masks are quick for: a JSON grammar whose strings
are terminals takes 2 us a mask, one that is rules down to the character 1.4 ms (152k tokens). So
a rule that is regular becomes a terminal where nothing that can follow it could also extend it,
and else stays a rule.

Characters are counted in `_Sets` of 129 bits: one each for ASCII, and one for all others together.
That errs on the side of rules.
"""

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.errors import RequestError
from engine.grammar.ebnf_parser import (
    Choice,
    Name,
    Node,
    OneOf,
    Repeat,
    Sequence,
    Text,
    parse,
)

_LARK = re.compile(r"(?m)^\s*(%llguidance\b|start\s*:)")
_OTHERS = 1 << 128
_ALL = _OTHERS * 2 - 1
_SAFE = re.compile(r"[A-Za-z0-9 ]")


def is_lark(grammar: str) -> bool:
    """Whether it is in Lark's notation already: its first rule is `start:`."""
    return _LARK.search(grammar) is not None


def to_lark(grammar: str) -> str:
    """The same language in Lark; raises `RequestError` for what is no GBNF with a rule `root`."""
    rules = parse(grammar)
    if "root" not in rules:
        raise RequestError("the grammar has no rule root (in GBNF) or start (in Lark)")
    for body in rules.values():
        for name in _names(body):
            if name not in rules:
                raise RequestError(f"rule {name[:60]!r} is used and not defined")
    return _Writer(rules).lark()


@dataclass(frozen=True, slots=True)
class _Sets:
    """What is known of a node's texts: may one be empty, how do they begin, what is in them, and
    which characters might make a longer one of one."""

    empty: bool = False
    first: int = 0
    inside: int = 0
    extends: int = 0


class _Writer:
    """Rules named R0, R1, ... as terminals and r0, r1, ... as rules, in the order they came."""

    def __init__(self, rules: dict[str, Node]) -> None:
        self._rules = dict(rules)
        self._lift_repeats()
        self._number = {name: place for place, name in enumerate(self._rules)}
        self._regular = self._find_regular()
        self._sets = dict.fromkeys(self._rules, _Sets())
        self._find_sets()
        self._follow = dict.fromkeys(self._rules, 0)
        self._find_follow()
        self._terminals = {
            name
            for name in self._regular
            if not self._sets[name].extends & self._follow[name] and self._sets[name].inside
        }

    def lark(self) -> str:
        """Only what `root` leads to is written, each as it is asked for."""
        lines, wanted = [f"start: {self._called('root', False)}"], [("root", self._is("root"))]
        written = set(wanted)
        while wanted:
            name, terminal = wanted.pop()
            body = self._rules[name]
            if name in self._regular and not terminal:  # a longer text would hide a shorter one
                body = _by_character(body)
            written_body = self._written(body, terminal)
            lines.append(f"{self._called(name, terminal)}: {written_body}")
            for other in _names(self._rules[name]):
                asked = (other, terminal or self._is(other))
                if asked not in written:
                    written.add(asked)
                    wanted.append(asked)
        return "\n".join(lines) + "\n"

    def _is(self, name: str) -> bool:
        return name in self._terminals

    def _called(self, name: str, within_terminal: bool) -> str:
        letter = "R" if within_terminal or self._is(name) else "r"
        return f"{letter}{self._number[name]}"

    def _written(self, node: Node, terminal: bool) -> str:
        match node:
            case Text(text):
                return json.dumps(text)
            case OneOf():
                return _one_of(node)
            case Name(name):
                return self._called(name, terminal)
            case Sequence(parts):
                return " ".join(self._grouped(part, terminal) for part in parts) or '""'
            case Choice(parts):
                return " | ".join(self._written(part, terminal) for part in parts)
            case Repeat(part, least, most):
                return self._grouped(part, terminal) + _times(least, most)

    def _grouped(self, node: Node, terminal: bool) -> str:
        written = self._written(node, terminal)
        return f"({written})" if isinstance(node, Sequence | Choice | Repeat) else written

    def _lift_repeats(self) -> None:
        """Repetitions get rules of their own, so that each may be a terminal."""
        for name in list(self._rules):
            self._rules[name] = self._lifted(self._rules[name], top=True)

    def _lifted(self, node: Node, top: bool = False) -> Node:
        match node:
            case Sequence(parts):
                return Sequence(tuple(self._lifted(part) for part in parts))
            case Choice(parts):
                return Choice(tuple(self._lifted(part) for part in parts))
            case Repeat(part, least, most):
                node = Repeat(self._lifted(part), least, most)
                if top:
                    return node
                name = f" {len(self._rules)}"  # no rule that was read is called so
                self._rules[name] = node
                return Name(name)
        return node

    def _find_regular(self) -> set[str]:
        """Rules that lead to no rule that leads back to itself."""
        missing = {name: set(_names(body)) for name, body in self._rules.items()}
        regular: set[str] = set()
        queue = deque(name for name, names in missing.items() if not names)
        users = self._users()
        while queue:
            name = queue.popleft()
            regular.add(name)
            for user in users[name]:
                missing[user].discard(name)
                if not missing[user] and user not in regular:
                    queue.append(user)
        return regular

    def _users(self) -> dict[str, list[str]]:
        """The rules that name each rule, each once."""
        users: dict[str, list[str]] = {name: [] for name in self._rules}
        for name, body in self._rules.items():
            for used in dict.fromkeys(_names(body)):
                users[used].append(name)
        return users

    def _find_sets(self) -> None:
        users, queue = self._users(), _Queue(reversed(self._rules))
        while queue:
            name = queue.pop()
            sets = self._of(self._rules[name])
            if sets != self._sets[name]:
                self._sets[name] = sets
                queue.add(users[name])

    def _of(self, node: Node) -> _Sets:
        match node:
            case Text(text):
                return _Sets(not text, _bits(text[:1]), _bits(text))
            case OneOf():
                return _Sets(False, _bits_of(node), _bits_of(node))
            case Name(name):
                return self._sets[name]
            case Sequence(parts):
                return _in_sequence(self._of(part) for part in parts)
            case Choice(parts):
                return _one_of_them([self._of(part) for part in parts])
            case Repeat(part, least, most):
                return _repeated(self._of(part), least, most)

    def _find_follow(self) -> None:
        queue = _Queue(self._rules)
        while queue:
            name = queue.pop()
            queue.add(self._note_follow(self._rules[name], self._follow[name]))

    def _note_follow(self, node: Node, after: int) -> list[str]:
        """Note what comes after the rules that `node` names; returns those for which it is new."""
        match node:
            case Name(name):
                old = self._follow[name]
                self._follow[name] |= after
                return [name] if self._follow[name] != old else []
            case Sequence(parts):
                changed = []
                for part in reversed(parts):
                    changed += self._note_follow(part, after)
                    sets = self._of(part)
                    after = sets.first | (after if sets.empty else 0)
                return changed
            case Choice(parts):
                return [name for part in parts for name in self._note_follow(part, after)]
            case Repeat(part, _, most):
                again = self._of(part).first if most != 1 else 0
                return self._note_follow(part, after | again)
        return []


class _Queue:
    """Rules to look at (again), each at most once at a time."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = dict.fromkeys(names)

    def __bool__(self) -> bool:
        return bool(self._names)

    def add(self, names: Iterable[str]) -> None:
        self._names.update(dict.fromkeys(names))

    def pop(self) -> str:
        name = next(iter(self._names))
        del self._names[name]
        return name


def _in_sequence(parts: Iterable[_Sets]) -> _Sets:
    whole = _Sets(empty=True)
    for part in parts:
        inside = whole.inside | part.inside
        extends = part.extends
        if part.empty:
            extends |= whole.extends | part.first
        if whole.extends & part.first:  # "aa" in a* "a": the end of one may be within the other
            extends |= inside
        first = whole.first | (part.first if whole.empty else 0)
        whole = _Sets(whole.empty and part.empty, first, inside, extends)
    return whole


def _one_of_them(parts: list[_Sets]) -> _Sets:
    first = inside = extends = 0
    common = False
    for part in parts:
        common |= bool(first & part.first)
        first |= part.first
        inside |= part.inside
        extends |= part.extends
    empty = any(part.empty for part in parts)
    if empty:
        extends |= first
    if common:  # "ab" in "a" | "ab"
        extends |= inside
    return _Sets(empty, first, inside, extends)


def _repeated(part: _Sets, least: int, most: int | None) -> _Sets:
    extends = part.extends
    if least != most:
        extends |= part.first
    if part.extends & part.first and most != 1:
        extends |= part.inside
    return _Sets(part.empty or least == 0, part.first, part.inside, extends)


def _by_character(node: Node) -> Node:
    """The same with texts taken apart."""
    match node:
        case Text(text) if len(text) > 1:
            return Sequence(tuple(map(Text, text)))
        case Sequence(parts):
            return Sequence(tuple(map(_by_character, parts)))
        case Choice(parts):
            return Choice(tuple(map(_by_character, parts)))
        case Repeat(part, least, most):
            return Repeat(_by_character(part), least, most)
    return node


def _names(node: Node) -> Iterator[str]:
    match node:
        case Name(name):
            yield name
        case Sequence(parts) | Choice(parts):
            for part in parts:
                yield from _names(part)
        case Repeat(part):
            yield from _names(part)


def _bits(text: str) -> int:
    bits = 0
    for character in text:
        bits |= _OTHERS if ord(character) > 127 else 1 << ord(character)
    return bits


def _bits_of(node: OneOf) -> int:
    bits = 0
    for first, last in node.ranges:
        low, high = ord(first), min(ord(last), 127)
        if low <= high:
            bits |= (1 << high + 1) - (1 << low)
        if ord(last) > 127:
            bits |= _OTHERS
    return (_ALL ^ bits) | _OTHERS if node.negated else bits


def _one_of(node: OneOf) -> str:
    """[a-z/]  ->  /[a-z\\x2f]/"""
    ranges = "".join(
        _character(first) + (f"-{_character(last)}" if last != first else "")
        for first, last in node.ranges
    )
    return f"/[{'^' if node.negated else ''}{ranges}]/"


def _character(character: str) -> str:
    return character if _SAFE.fullmatch(character) else f"\\u{{{ord(character):x}}}"


def _times(least: int, most: int | None) -> str:
    match least, most:
        case 0, None:
            return "*"
        case 1, None:
            return "+"
        case 0, 1:
            return "?"
    return f"{{{least},{'' if most is None else most}}}"
