"""Calls written as Python calls, in a list or line by line.

    [get_weather(city="Rome", days=3), get_time()]

Only literals are arguments, Python's or JSON's; they are read, never run.
"""

import ast
import json
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from serve.reply.bound import (
    BLANKS,
    CallsOrAnswer,
    Part,
    Wish,
    const,
    either,
    in_order,
    several_of,
    tag,
    tagged,
)
from serve.reply.events import Output
from serve.reply.json_calls import parsed
from serve.reply.python_grammar import NAME, python_call
from serve.reply.reader import Emit, Reader, Reading, text_until
from serve.reply.reply import Grammar

_MAX_DEPTH = 50  # of brackets; Python's parser is recursive
_JSON_NAMES = {"true": True, "false": False, "null": None}
# Llama 4 may write these around a list; they are special tokens, which are mostly not shown
_LLAMA = ("<|python_start|>", "<|python_end|>")
_BLANKS = r"[\s\x1c-\x1f]*"
# a reply that begins as a list of calls does
_LIST = rf"{_BLANKS}(<\|python_start\|>)?{_BLANKS}\[{_BLANKS}[A-Za-z_][^(\]\n{{]*\((.|\n)*"
_BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}


@dataclass(frozen=True)
class PythonCalls:
    """Calls after `begin`; without one, a reply that begins with a list of them.

    `known_only`: what else is called is no call, but the answer.
    """

    begin: tuple[str, ...] = ()
    end: tuple[str, ...] = ()
    listed: bool = True
    known_only: bool = False

    def chosen(self) -> Grammar:
        """Calls begin with a mark, or else with the name of a tool."""
        return CallsOrAnswer(self, self.begin) if self.begin else replace(self, known_only=True)

    def bound(self, wish: Wish) -> Part:
        """Calls between the marks; without any, calls are the whole reply or none of it."""
        one = wish.one_call and wish.answer is not None
        call = _any_of(wish, "")
        if not self.begin:
            # one lexeme up to the bracket, or a text that begins so far like it takes precedence
            first, more = (
                _any_of(wish, r"[ \n]{0,3}\["),
                tag("", in_order(const(","), BLANKS, call)),
            )
            others = {"type": "tags_with_separator", "tags": [more], "separator": ""}
            calls = in_order(first, *([] if one else [others]), BLANKS, const("]"))
            text = {"type": "any_text", "unlike": _LIST, "excludes": list(wish.excludes)}
            return either(calls, wish.answer or text)
        if self.listed:
            several = several_of([in_order(BLANKS, call)], ",", one=one)
            calls = in_order(BLANKS, const("["), several, const("]"))
        else:
            calls = in_order(BLANKS, several_of([call], "\n", one=one))
        closed = in_order(calls, BLANKS, either(*map(const, self.end)))
        return tagged(wish, [tag(begin, closed) for begin in self.begin])

    def __call__(self, reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
        if not self.begin:
            if (yield from self._calls(reader, out, tools, "")):
                yield from _end(reader, _LLAMA[1:])
            yield from reader.rest(out.content)
            return
        while mark := (yield from reader.until(*self.begin, emit=out.content)):
            if (yield from self._calls(reader, out, tools, mark)):
                yield from _end(reader, self.end)

    def _calls(
        self, reader: Reader, out: Output, tools: Mapping[str, Any], mark: str
    ) -> Reading[bool]:
        """Read a list, or lines, of calls; whether there are any."""
        before = out.num_calls
        reader.record()
        yield from reader.blanks()
        if not self.begin:
            yield from reader.accept(_LLAMA[0])
            yield from reader.blanks()
        if not self.listed or (yield from reader.accept("[")):
            yield from reader.blanks()
            while name := (yield from _name(reader, self.end)):
                if self.known_only and name not in tools:
                    break
                out.begin_call(name)
                yield from _arguments(reader, out)
                yield from reader.blanks()
                yield from reader.accept(",")
                yield from reader.blanks()
            yield from reader.accept("]")
        text = reader.recorded()
        if out.num_calls == before:
            out.content(mark + text)
        return out.num_calls > before


def _any_of(wish: Wish, before: str) -> Part:
    return either(*(python_call(name, schema, before) for name, schema in wish.tools.items()))


def _end(reader: Reader, marks: tuple[str, ...]) -> Reading[None]:
    yield from reader.blanks()
    yield from reader.accept(*marks)


def _name(reader: Reader, end: tuple[str, ...]) -> Reading[str]:
    """Read up to the bracket behind a name, and give the name; "" if what follows is no call."""
    head, stop = yield from text_until(reader, "(", "]", "\n", "{", *end, keep=True)
    return head.strip() if stop == "(" and NAME.match(head.strip()) else ""


def _arguments(reader: Reader, out: Output) -> Reading[None]:
    """Read `(key=value, ...)`."""
    yield from reader.accept("(")
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
    if text == "null" or parsed(text) is not None:
        return text
    if depth <= _MAX_DEPTH:
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = _value(_parsed(text))
            written = json.dumps(value, ensure_ascii=False, allow_nan=False)
            return written.encode().decode()  # half a surrogate pair is no text
    return json.dumps(text, ensure_ascii=False)


def _parsed(text: str) -> ast.expr:
    """What Python warns of, as "\\d", is for nobody here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text, mode="eval").body


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
