"""Reading config.json: every value is checked here, once, and nowhere else.

Owns types and ranges. Knows no key by name; which keys a family has is said in `architectures/`.
A key that is absent and one that is null mean the same.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

from models.errors import CheckpointError, UnsupportedError

# Beyond every model there is, and small enough that no product of them overflows
MAX_SIZE = 2**24  # widths, vocabulary
MAX_HEADS = 2**12  # heads, and dimensions of one
MAX_LAYERS = 2**10
MAX_TOKENS = 2**31 - 1  # positions and token ids are int32


class Fields:
    """A JSON object whose values are asked for by type.

    Raises:
        CheckpointError: by every reader, where a value is missing, of another type or out of range.
    """

    def __init__(
        self,
        raw: Mapping[str, Any],
        where: str = "config.json",
        names: Mapping[str, str] | None = None,
    ):
        self.raw = raw
        self.where = where
        self.names = names or {}  # the key asked for -> what this file calls it

    def __contains__(self, key: str) -> bool:
        return self._get(key) is not None

    def name(self, key: str) -> str:
        """What this file calls it."""
        return self.names.get(key, key)

    def replaced(self, key: str, value: Any) -> "Fields":
        """The same file, but for one value."""
        return Fields({**self.raw, self.name(key): value}, self.where, self.names)

    def completed(self, key: str, value: Any) -> "Fields":
        """The same file, with this value if it has none."""
        return self if key in self else self.replaced(key, value)

    def integer(
        self, key: str, default: int | None = None, *, low: int = 1, high: int = MAX_SIZE
    ) -> int:
        """A whole number from `low` to `high`."""
        value = self._value(key, default)
        if not _is(value, int) or not low <= value <= high:
            raise self._wrong(key, value, f"a whole number from {low} to {high}")
        return int(value)

    def number(
        self, key: str, default: float | None = None, *, low: float = 0.0, high: float = 1e12
    ) -> float:
        """A finite number above `low` and up to `high`."""
        value = self._value(key, default)
        if not _is(value, int | float) or not low < value <= high:
            raise self._wrong(key, value, f"a number above {low:g} and up to {high:g}")
        return float(value)

    def optional_number(self, key: str) -> float | None:
        """As `number`, or None."""
        return self.number(key) if key in self else None

    def integers(self, key: str, *, low: int = 0, high: int = MAX_SIZE) -> tuple[int, ...]:
        """A list of whole numbers from `low` to `high`; empty if absent."""
        values = self._value(key, [])
        if not isinstance(values, list):
            raise self._wrong(key, values, "a list of whole numbers")
        return tuple(
            Fields({key: value}, self.where).integer(key, low=low, high=high) for value in values
        )

    def pairs(self, key: str) -> tuple[tuple[int, int], ...]:
        """A list of pairs of whole numbers from 0 up; empty if absent."""
        values = self._value(key, [])
        known = isinstance(values, list) and all(
            isinstance(pair, list)
            and len(pair) == 2
            and all(_is(each, int) and each >= 0 for each in pair)
            for pair in values
        )
        if not known:
            raise self._wrong(key, values, "a list of pairs of whole numbers")
        return tuple((first, second) for first, second in values)

    def numbers(self, key: str, length: int, *, low: float = 0.0) -> tuple[float, ...]:
        """A list of `length` finite numbers above `low`."""
        values = self._value(key)
        if not isinstance(values, list) or len(values) != length:
            raise self._wrong(key, values, f"a list of {length} numbers")
        return tuple(Fields({key: value}, self.where).number(key, low=low) for value in values)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings, not empty."""
        values = self._value(key)
        if not isinstance(values, list) or not values:
            raise self._wrong(key, values, "a list of strings")
        return tuple(Fields({key: value}, self.where).text(key) for value in values)

    def option(self, key: str, known: Collection[str], default: str | None = None) -> str:
        """One of the strings `known`.

        Raises:
            UnsupportedError: it is another one.
        """
        value = self.text(key, default)
        if value not in known:
            raise self._unsupported(key, value, known)
        return value

    def options(self, key: str, length: int, known: Collection[str]) -> tuple[str, ...]:
        """A list of `length` strings out of `known`.

        Raises:
            UnsupportedError: it holds another one.
        """
        values = self.texts(key)
        if len(values) != length:
            raise self._wrong(key, values, f"a list of {length} strings")
        return tuple(Fields({key: value}, self.where).option(key, known) for value in values)

    def token_ids(self, key: str) -> tuple[int, ...]:
        """One token id, a list of them, or none; ids beyond the vocabulary are merely never met."""
        value = self._get(key)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        for one in ids:
            if not _is(one, int) or not 0 <= one <= MAX_TOKENS:
                raise self._wrong(key, one, f"a token id from 0 to {MAX_TOKENS}")
        return tuple(ids)

    def section(self, key: str) -> "Fields":
        """The object under this key, empty if absent."""
        value = self._value(key, {})
        if not isinstance(value, Mapping):
            raise self._wrong(key, value, "a JSON object")
        return Fields(value, f"{self.where}: {key}")

    def refuse(self, *keys: str) -> None:
        """Options that Ingot does not have must be absent, null, false or 0.

        Raises:
            UnsupportedError: one of them is in use.
        """
        for key in keys:
            if value := self._get(key):
                raise self._unsupported(key, value, ("false", "null"))

    def required(self, key: str) -> None:
        """An option that every model known has on, if it is there at all.

        Raises:
            UnsupportedError: it is off.
        """
        if not self.flag(key, True):
            raise self._unsupported(key, False, ("true",))

    def constant(self, key: str, value: float) -> None:
        """A number that is the same in every model known, if it is there at all.

        Raises:
            UnsupportedError: it is another one.
        """
        if self.number(key, value) != value:
            raise self._unsupported(key, self._get(key), (f"{value:g}",))

    def _get(self, key: str) -> Any:
        return self.raw.get(self.name(key))

    def _value(self, key: str, default: Any = None) -> Any:
        value = self._get(key)
        if value is None:
            value = default
        if value is None:
            name = self.name(key)
            raise CheckpointError(f"{self.where} has no {name}, and the model needs one.")
        return value

    def _wrong(self, key: str, value: object, wanted: str) -> CheckpointError:
        named = f"{self.where}: {self.name(key)} is {_show(value)}"
        return CheckpointError(f"{named}; it must be {wanted}.")

    def _unsupported(self, key: str, value: object, known: Collection[str]) -> UnsupportedError:
        supported = ", ".join(known)
        named = f"{self.where}: {self.name(key)} is {_show(value)}"
        return UnsupportedError(f"{named}, which is not supported; use {supported}.")


def _is(value: object, kind: Any) -> bool:
    """A finite number of this kind; JSON's true is none, though Python's is."""
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_huge(value: object) -> bool:
    return isinstance(value, int) and value.bit_length() > 1024  # Python may refuse to print it


def _show(value: object) -> str:
    text = "a number of many digits" if _is_huge(value) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
