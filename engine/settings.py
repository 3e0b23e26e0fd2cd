"""Untyped settings, from flags or keyword arguments, into a struct that checks itself.

Every error is a `ConfigError` that names the flag, what it got and what would work.
"""

import difflib
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from engine.errors import ConfigError
from engine.misfit import misfit

LARGEST = 2**48  # of any number: more bytes, tokens or rows than a machine has
Settings = TypeVar("Settings", bound=msgspec.Struct)


def convert_settings(settings: dict[str, Any], kind: type[Settings]) -> Settings:
    """`settings` as a `kind`; raises `ConfigError`."""
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for name, value in settings.items():
        if name not in fields:
            raise ConfigError(_unknown(name, list(fields)))
        _check(name, value, fields[name].type)
    try:
        return msgspec.convert(settings, kind)
    except msgspec.ValidationError as error:
        place, what = misfit(error, kind)
        name, dot, inner = place.partition(".")
        raise ConfigError(f"{flag(name)}{dot}{inner} {what}.") from None


def flag(name: str) -> str:
    """`max_model_len` as it is written on the command line."""
    return "--" + name.replace("_", "-")


def _check(name: str, value: object, kind: Any) -> None:
    kinds = get_args(kind) or (kind,)
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if choices and value not in choices:
        raise ConfigError(
            f"{flag(name)} must be one of {', '.join(choices)}; got {str(value)[:60]!r}."
        )
    words = [word for each in kinds if get_origin(each) is Literal for word in get_args(each)]
    if int in kinds and isinstance(value, str) and value not in words:
        wanted = " or ".join(("a number", *words))
        raise ConfigError(f"{flag(name)} must be {wanted}; got {value[:60]!r}.")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ConfigError(f"{flag(name)} must be between -{LARGEST} and {LARGEST}.")


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]}?" if near else "."
    return f"There is no setting {name[:60]!r}{hint}"
