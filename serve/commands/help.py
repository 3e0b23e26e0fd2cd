"""Help of commands in plain text: a name is never cut short, however narrow the terminal.

Owns how a command's options are laid out: a heading for each group, a name too long for its column
on a line of its own. What options are called and mean is in `options` and the files beside it.
"""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from serve.commands.repeated import repeated

_WIDTH = {"max_content_width": 110}
Function = TypeVar("Function", bound=Callable[..., Any])
_LONG = 76  # of 80 columns
_HYPHEN, _SPACE = "\u2011", "\u00a0"  # at which no line ends: `--max-logprobs`, `[default: 1]`


class Commands(typer.Typer):
    """A `typer.Typer` whose commands are shown so."""

    def __init__(self, *, context_settings: dict[str, Any] | None = None, **given: Any) -> None:
        settings = _WIDTH | (context_settings or {})
        super().__init__(cls=_Group, rich_markup_mode=None, context_settings=settings, **given)

    def command(self, name: str | None = None, **given: Any) -> Callable[[Function], Function]:
        """As Typer's own."""
        return super().command(name, cls=_Command, **given)


class _Command(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Of what was typed."""
        several = (each for each in self.params if getattr(each, "multiple", False))
        flags = {flag for each in several for flag in each.opts}
        count = sum(each.param_type_name == "argument" for each in self.params)
        return super().parse_args(ctx, repeated(args, flags, count))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_options(self, ctx, formatter)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`MODEL` for an argument that is needed, which Typer puts in braces."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def get_help(self, ctx: Any) -> str:
        """The whole text."""
        return _plain(super().get_help(ctx))


class _Group(TyperGroup):
    def format_options(self, ctx: Any, formatter: Any) -> None:
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        rows = [
            (_bold(name), each.get_short_help_str(1000)) for name, each in commands.items() if each
        ]
        _write(formatter, "Commands", rows)
        _write_options(self, ctx, formatter)

    def get_help(self, ctx: Any) -> str:
        """The whole text."""
        return _plain(super().get_help(ctx))


def _write_options(command: Any, ctx: Any, formatter: Any) -> None:
    groups: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None:
            kind = "Options" if parameter.param_type_name == "option" else "Arguments"
            group = getattr(parameter, "rich_help_panel", None) or kind
            groups.setdefault(group, []).append(_row(*record))
    for title, rows in groups.items():
        _write(formatter, title, rows)


def _row(names: str, text: str) -> tuple[str, str]:
    """Of an option, as Typer describes it: `no-enable-x`, the default of a switch, is `off`."""
    if " / " in names:
        text = re.sub(
            r"default: (no-)?[\w-]+", lambda m: f"default: {'off' if m[1] else 'on'}", text
        )
    text = re.sub(r"\s*\[x>=\d+\]$|; x>=\d+(?=\]$)", "", text)  # who goes below is told so
    names = names.replace(" range>", ">")
    if len(names) > _LONG:
        names = names.replace(", ", ",\n  ")
    extra = re.search(r"\[[a-z ]+: \S+\]$", text)
    if extra:
        text = text[: extra.start()] + extra[0].replace(" ", _SPACE)
    return _bold(names), text.replace("-", _HYPHEN)


def _write(formatter: Any, title: str, rows: list[tuple[str, str]]) -> None:
    with formatter.section(_bold(title)):
        formatter.write_dl(rows)


def _plain(text: str) -> str:
    return text.replace(_HYPHEN, "-").replace(_SPACE, " ")


def _bold(text: str) -> str:
    return typer.style(text, bold=True)
