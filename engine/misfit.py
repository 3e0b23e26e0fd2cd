"""What msgspec says of a value that does not fit, as a sentence for who gave it.

Object missing required field `max_tokens`                  max_tokens is missing.
Invalid enum value 'robot' - at `$.messages[0].role`        messages[0].role must be ...
Expected `int`, got `str` - at `$.stop[0]`                  stop[0] is wrong: Expected int, ...
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

_SAID = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `([^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`")
_NO_OPTION = re.compile(r"Invalid (?:enum )?value (.*)", re.DOTALL)
_STEP = re.compile(r"[^.\[\]]+|\[[^\]]*\]")


class Misfit(NamedTuple):
    """`place`: which value does not fit, "" being all; `what`: the rest of the sentence."""

    place: str
    what: str


def misfit(error: msgspec.ValidationError, kind: Any, where: str = "") -> Misfit:
    """What is wrong with a value that was to be a `kind`, itself at `where` in something."""
    match = _SAID.match(str(error))
    what, path = (match["what"], match["path"] or "") if match else (str(error), "")
    place = _joined(where, path)
    if missing := _MISSING.fullmatch(what):
        return Misfit(_joined(place, missing[1]), "is missing")
    if unknown := _UNKNOWN.fullmatch(what):
        return Misfit(_joined(place, unknown[1]), "is no field here")
    options = _options(kind, path) if (given := _NO_OPTION.fullmatch(what)) else []
    if given and options:
        listed = options[0] if len(options) == 1 else f"one of {', '.join(options)}"
        return Misfit(place, f"must be {listed}; got {given[1][:60]}")
    return Misfit(place, f"is wrong: {what.replace('`', '')[:200]}")


def _joined(where: str, path: str) -> str:
    return f"{where}.{path}" if where and path and path[0] != "[" else where + path


def _options(kind: Any, path: str) -> list[str]:
    """The values that there may be at the place in a `kind`, where they are few."""
    found = list(_plain(_type_info(kind)))
    for step in _STEP.findall(path):
        found = [one for each in found for inner in _inside(each, step) for one in _plain(inner)]
    values = [each.values for each in found if isinstance(each, inspect.LiteralType)]
    options = [repr(value) for each in values for value in each]
    if options and any(isinstance(each, inspect.BoolType) for each in found):
        options += ["true", "false"]
    return list(dict.fromkeys(options))


@cache
def _type_info(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


def _plain(info: inspect.Type) -> Iterator[inspect.Type]:
    """The types of which a union consists."""
    if isinstance(info, inspect.UnionType):
        for each in info.types:
            yield from _plain(each)
    elif isinstance(info, inspect.Metadata):
        yield from _plain(info.type)
    else:
        yield info


def _inside(info: inspect.Type, step: str) -> Iterator[inspect.Type]:
    """The types of a field, or of what is at a place in a list."""
    if isinstance(info, inspect.StructType):
        if info.tag_field == step:
            yield inspect.LiteralType((info.tag,))
        yield from (field.type for field in info.fields if field.encode_name == step)
    elif isinstance(info, inspect.CollectionType) and step[0] == "[":
        yield info.item_type
    elif isinstance(info, inspect.DictType):
        yield info.value_type
