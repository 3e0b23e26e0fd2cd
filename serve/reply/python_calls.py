"""Calls written as Python calls, in a list or line by line.

    [get_weather(city="Rome", days=3), get_time()]

Only literals are arguments; they are read, never run.
"""

import ast
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from serve.reply.events import Output
from serve.reply.reader import Emit, Reader, Reading, text_until

_NAME = re.compile(r"[A-Za-z_][\w.\-]{0,255}\Z")
_MAX_DEPTH = 50  # of brackets; Python's parser is recursive
_JSON_NAMES = {"true": True, "false": False, "null": None}
_BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}


@dataclass(frozen=True)
class PythonCalls:
    """Calls after `begin`; without one, a reply that begins with a list of them."""

    begin: tuple[str, ...] = ()
    end: tuple[str, ...] = ()
    listed: bool = True

    def __call__(self, reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
        if not self.begin:
            yield from self._calls(reader, out, "")
            yield from reader.rest(out.content)
            return
        while mark := (yield from reader.until(*self.begin, emit=out.content)):
            yield from self._calls(reader, out, mark)
            if self.end:
                yield from reader.blanks()
                yield from reader.accept(*self.end)

    def _calls(self, reader: Reader, out: Output, mark: str) -> Reading[None]:
        before = out.num_calls
        reader.record()
        yield from reader.blanks()
        if not self.listed or (yield from reader.accept("[")):
            while (yield from _call(reader, out, self.end)):
                yield from reader.blanks()
                yield from reader.accept(",")
                yield from reader.blanks()
            yield from reader.accept("]")
        text = reader.recorded()
        if out.num_calls == before:
            out.content(mark + text)


def _call(reader: Reader, out: Output, end: tuple[str, ...]) -> Reading[bool]:
    """Read `name(key=value, ...)`; False if what follows is none."""
    head, stop = yield from text_until(reader, "(", "]", "\n", "{", *end, keep=True)
    if stop != "(" or not _NAME.match(head.strip()):
        return False
    yield from reader.accept("(")
    out.begin_call(head.strip())
    before = "{"
    while (yield from reader.blanks()) not in (")", ""):
        key, stop = yield from text_until(reader, "=", ")", keep=True)
        if stop != "=":
            break
        yield from reader.accept("=")
        literal = _json(*(yield from _literal(reader)))
        out.arguments(f"{before}{json.dumps(key.strip(), ensure_ascii=False)}: {literal}")
        before = ", "
        yield from reader.accept(",")
    yield from reader.accept(")")
    out.arguments("{}" if before == "{" else "}")
    return True


def _literal(reader: Reader) -> Reading[tuple[str, int]]:
    """Read up to the comma or bracket that ends a literal; gives it, and how deep it nests."""
    pieces: list[str] = []
    depth = deepest = 0
    while True:
        stop = yield from reader.until(*_BRACKETS, ",", '"', "'", emit=pieces.append, keep=True)
        if stop is None or (depth == 0 and stop in ",)]}"):
            return "".join(pieces), deepest
        yield from reader.accept(stop)
        pieces.append(stop)
        depth += _BRACKETS.get(stop, 0)
        deepest = max(deepest, depth)
        if stop in "\"'":
            yield from _string(reader, stop, pieces.append)


def _string(reader: Reader, quote: str, emit: Emit) -> Reading[None]:
    """Read the rest of a string, its end included; models break lines where Python does not."""

    def one_line(text: str) -> None:
        emit(text.replace("\n", "\\n"))

    while (stop := (yield from reader.until("\\", quote, emit=one_line))) == "\\":
        emit(stop)
        emit((yield from reader.one()))
    emit(stop or "")


def _json(literal: str, depth: int) -> str:
    """The JSON of a Python or JSON literal; of what is none, of its text."""
    text = literal.strip()
    if depth <= _MAX_DEPTH:
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = _value(ast.parse(text, mode="eval").body)
            return json.dumps(value, ensure_ascii=False, allow_nan=False)
    return json.dumps(text, ensure_ascii=False)


def _value(node: ast.expr) -> Any:
    """What a literal stands for; raises ValueError for all other expressions."""
    match node:
        case ast.Constant(value=str() | int() | float() | bool() | None as value):
            return value
        case ast.Name(id=name) if name in _JSON_NAMES:
            return _JSON_NAMES[name]
        case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
            return [_value(element) for element in elements]
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return {str(_value(key)): _value(value) for key, value in pairs if key is not None}
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
    raise ValueError("not a literal")
