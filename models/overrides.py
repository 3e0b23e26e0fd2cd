"""`--hf-overrides`: values that go before those of config.json.

Owns finding out whether an override has any effect: one that the model does not read is an error,
and never ignored. Knows no key of a model by name.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from models.errors import UnsupportedError

Raw = Mapping[str, Any]


class _Nothing:
    """A value that no reader of any key takes."""


def overridden(raw: Raw, overrides: Raw | None, read: Callable[[Raw], object]) -> dict[str, Any]:
    """`raw` with the `overrides` in the place of its own values; objects are replaced as a whole.

    Args:
        read: reads all of such a config.json that has a part in what is asked of the model, raising
            for values that it does not take.

    Raises:
        UnsupportedError: `read` does not look at one of the overrides.
    """
    changed = {**raw, **(overrides or {})}
    for key in overrides or {}:
        if not _reads(read, {**changed, key: _Nothing()}):
            near = get_close_matches(key, raw, n=1)
            hint = f"; did you mean {near[0]!r}?" if near and near[0] != key else "."
            name = ", ".join(map(str, changed.get("architectures", ["this model"])))
            raise UnsupportedError(
                f"--hf-overrides sets {key!r}, which {name} does not read from its config.json"
                f"{hint}"
            )
    return changed


def _reads(read: Callable[[Raw], object], raw: Raw) -> bool:
    try:
        read(raw)
    except Exception:  # of any kind: somebody has looked at it
        return True
    return False
