"""Replies in which the model chooses whether to call tools, and what it calls is bound.

    text <tool_call>{"name": "get_weather", "arguments": {...}}</tool_call> text

Text is free until a format's mark begins a call, which keeps to its tool's schema; or there is no
text, and a reply is calls or an answer that is bound as well. Written as parts of a structural tag
(`engine.grammar.tags`); how a call is written is the format's own to say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from engine.errors import RequestError
from serve.reply.events import Output
from serve.reply.reader import Reader, Reading
from serve.reply.reply import Grammar

Part = dict[str, Any]
BLANKS: Part = {"type": "regex", "pattern": r"[ \n]{0,3}"}
NOTHING: Part = {"type": "const_string", "value": ""}
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_DATA = ("const", "enum", "default", "examples")


@dataclass(frozen=True)
class Wish:
    """What a reply may be. `tools` has the schemas of arguments by name; without an `answer` text
    is free: `marks` may stand in it, which are special tokens perhaps, and `excludes` may not."""

    tools: Mapping[str, Any]
    answer: Part | None = None
    marks: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    one_call: bool = False


@runtime_checkable
class BindsCalls(Protocol):
    """A format whose calls a grammar can bind."""

    def bound(self, wish: Wish) -> Part:
        """The whole reply, its reasoning left out."""

    def chosen(self) -> Grammar:
        """Reads replies that are either calls or an answer, which may look like anything."""


def tagged(wish: Wish, calls: Sequence[Part], around: tuple[str, ...] = ()) -> Part:
    """Replies in a format whose `calls` are tags; `around` are marks that stand around them."""
    if wish.answer is None:
        begins = [call["begin"] for call in calls]
        own = [call for call in calls if not _ends_another(call["begin"], begins)]
        tags = [*own, *(tag(mark, NOTHING) for mark in (*around, *wish.marks))]
        return {
            "type": "triggered_tags",
            "triggers": [each["begin"] for each in tags],
            "tags": tags,
            "excludes": [*begins, *wish.excludes],
        }
    several = several_of(calls, "", one=wish.one_call)
    if around:
        several = in_order(const(around[0]), BLANKS, several, const(around[1]))
    return either(several, wish.answer)


def _ends_another(begin: str, begins: Sequence[str]) -> bool:
    """Whether this mark is the end of a longer one, which is found first."""
    return any(other != begin and other.endswith(begin) for other in begins)


def several_of(calls: Sequence[Part], separator: str, *, one: bool) -> Part:
    """One of `calls` or more, blanks after each."""
    spaced = [tag("", in_order(call, BLANKS)) for call in calls]
    return {
        "type": "tags_with_separator", "tags": spaced, "separator": separator,
        "at_least_one": True, "stop_after_first": one,
    }  # fmt: skip


def tag(begin: str, content: Part, end: str = "") -> Part:
    """`content` between two marks."""
    return {"type": "tag", "begin": begin, "content": content, "end": end}


def text_until(end: str | Sequence[str], *, begin: str = "", excludes: Sequence[str] = ()) -> Part:
    """Free text after `begin` and up to `end`, or to one of several."""
    content = {"type": "any_text", "excludes": list(excludes)}
    return {**tag(begin, content), "end": end if isinstance(end, str) else list(end)}


def in_order(*parts: Part) -> Part:
    """One after the other."""
    return {"type": "sequence", "elements": list(parts)}


def either(*parts: Part) -> Part:
    """One of them."""
    return {"type": "or", "elements": list(parts)}


def const(text: str) -> Part:
    """This text."""
    return {"type": "const_string", "value": text}


def json_part(schema: Any) -> Part:
    """JSON that keeps to a schema."""
    return {"type": "json_schema", "json_schema": schema}


def together(schemas: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Schemas as definitions of one that is made of them, and references to them by their names.

    A schema's references to its own parts are those of the document that it is in. Raises
    RequestError for one that is nested too deeply.
    """
    try:
        definitions = {
            f"tool{number}": _moved(schema, f"/$defs/tool{number}")
            for number, schema in enumerate(schemas.values())
        }
    except RecursionError:
        raise RequestError("tools: a schema is nested too deeply.", "tools") from None
    references = (f"#/$defs/{name}" for name in definitions)
    return definitions, {
        name: {"$ref": each} for name, each in zip(schemas, references, strict=True)
    }


def _moved(schema: Any, to: str) -> Any:
    """What stands for the same where it is part `to` of another; one with an id needs no change."""
    if isinstance(schema, list):
        return [_moved(each, to) for each in schema]
    if not isinstance(schema, dict) or "$id" in schema:
        return schema
    moved: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str) and value.startswith("#"):
            moved[key] = f"#{to}{value[1:]}"
        elif key in _NAMED and isinstance(value, dict):
            moved[key] = {name: _moved(each, to) for name, each in value.items()}
        else:
            moved[key] = value if key in _DATA else _moved(value, to)
    return moved


@dataclass(frozen=True)
class CallsOrAnswer:
    """Reads a reply that is calls if it begins so, and else an answer that may hold anything."""

    calls: Grammar
    begins: tuple[str, ...]

    def __call__(self, reader: Reader, out: Output, tools: Mapping[str, Any]) -> Reading[None]:
        if (yield from reader.begins(*self.begins)):
            yield from self.calls(reader, out, tools)
        else:
            yield from reader.rest(out.content)
