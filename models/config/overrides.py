"""`--hf-overrides`: values that go before those of config.json.

Owns finding out whether an override has any effect: one that the model does not read is an error,
and never ignored. Knows no key of a model by name.
"""

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from models.errors import UnsupportedError

Raw = Mapping[str, Any]


class _Nothing:
    """A value that no reader of any key takes."""


def overridden(raw: Raw, overrides: Raw | None, read: Callable[[Raw], object]) -> dict[str, Any]:
    """`raw` with the `overrides` in the place of its own values.

    Args:
        read: reads all of such a config.json that has a part in what is asked of the model, raising
            for values that it does not take.

    Raises:
        UnsupportedError: `read` does not look at one of the overrides.
    """
    changed = merged(raw, overrides or {})
    for path in _paths(raw, overrides or {}):
        if not _reads(read, _with_nothing(changed, path)):
            known: Raw = raw
            for name in path[:-1]:
                known = known[name]
            near = get_close_matches(path[-1], known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near and near[0] != path[-1] else "."
            architecture = ", ".join(map(str, changed.get("architectures", ["this model"])))
            raise UnsupportedError(
                f"--hf-overrides sets {'.'.join(path)!r}, which {architecture} does not read from "
                f"its config.json{hint}"
            )
    return changed


def merged(raw: Raw, overrides: Raw) -> dict[str, Any]:
    """Both, the `overrides` first; of a configuration within one, only what they name changes."""
    changed = dict(raw)
    for key, value in overrides.items():
        inner = _merges(key, raw.get(key), value)
        changed[key] = merged(raw[key], value) if inner else value
    return changed


def _merges(key: str, known: Any, value: Any) -> bool:
    """Whether both are parts of a configuration, text_config: other objects are one value each,
    rope_scaling, whose parts make sense together only; so is how weights are quantised."""
    objects = isinstance(known, Mapping) and isinstance(value, Mapping)
    return objects and key.endswith("_config") and "quant_method" not in {*known, *value}


def _paths(raw: Raw, overrides: Raw) -> Iterator[tuple[str, ...]]:
    """Where the overrides have values."""
    for key, value in overrides.items():
        if _merges(key, raw.get(key), value):
            yield from ((key, *path) for path in _paths(raw[key], value))
        else:
            yield (key,)


def _with_nothing(raw: Raw, path: tuple[str, ...]) -> dict[str, Any]:
    key, *rest = path
    return {**raw, key: _with_nothing(raw[key], tuple(rest)) if rest else _Nothing()}


def _reads(read: Callable[[Raw], object], raw: Raw) -> bool:
    try:
        read(raw)
    except Exception:  # of any kind: somebody has looked at it
        return True
    return False
