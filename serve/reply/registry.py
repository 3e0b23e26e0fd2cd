"""The formats, by name, and by what a chat template shows of them."""

import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from typing import TypeVar

from engine.errors import ConfigError
from serve.reply import formats
from serve.reply.format import ThinkingFormat, ToolFormat

AUTO, NONE = "auto", "none"
Format = TypeVar("Format", ToolFormat, ThinkingFormat)


def tool_format(name: str, templates: Iterable[str]) -> ToolFormat | None:
    """The format of that name; `auto` is what the templates show, if they show one.

    Raises ConfigError for a name that no format has.
    """
    return _find(name, templates, _all()[0], "--tool-call-parser")


def thinking_format(name: str, templates: Iterable[str]) -> ThinkingFormat | None:
    """The same for reasoning."""
    return _find(name, templates, _all()[1], "--reasoning-parser")


def _find(
    name: str, templates: Iterable[str], known: Mapping[str, Format], flag: str
) -> Format | None:
    if name == AUTO:
        return _shown("\n".join(templates), known.values())
    if name == NONE:
        return None
    if name not in known:
        choices = ", ".join((AUTO, NONE, *sorted(known)))
        raise ConfigError(f"{flag} {name[:40]!r} is not known; choose one of {choices}.")
    return known[name]


def _shown(template: str, known: Iterable[Format]) -> Format | None:
    """The format whose marks are in the template; of several, the one that asks for the most."""
    best, most = None, 0
    for each in known:
        for marks in each.marks:
            size = sum(map(len, marks))
            if size > most and all(mark in template for mark in marks):
                best, most = each, size
    return best


@cache
def _all() -> tuple[dict[str, ToolFormat], dict[str, ThinkingFormat]]:
    tools: dict[str, ToolFormat] = {}
    thinking: dict[str, ThinkingFormat] = {}
    for module in pkgutil.iter_modules(formats.__path__):
        for each in import_module(f"{formats.__name__}.{module.name}").FORMATS:
            if isinstance(each, ToolFormat):
                tools.update(dict.fromkeys(each.names, each))
            else:
                thinking.update(dict.fromkeys(each.names, each))
    return tools, thinking
