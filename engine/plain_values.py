"""Plain built-in values from whatever a Python caller passes: NumPy scalars, tuples, subclasses.

What comes out can be encoded and compared without surprises; what cannot be converted is a
`RequestError` that names the field. It knows nothing of bounds or of what the fields mean.
"""

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import TypeVar

from engine.errors import RequestError

T = TypeVar("T")


def boolean(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise _wrong(name, "must be true or false", value)


def integer(name: str, value: object) -> int:
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    raise _wrong(name, "must be an integer", value)


def number(name: str, value: object) -> float:
    """A finite float; an integer too large for one is refused."""
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            converted = float(value)
        except OverflowError:
            converted = math.inf
        if math.isfinite(converted):
            return converted
    raise _wrong(name, "must be a finite number", value)


def string(name: str, value: object) -> str:
    """Text that UTF-8 can carry; half a surrogate pair is refused."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RequestError(
                f"{name} holds half a surrogate pair, which is no text.", name
            ) from None
        return str(value)
    raise _wrong(name, "must hold strings", value)


def sequence(name: str, value: object, convert: Callable[[str, object], T]) -> list[T]:
    """A new list of converted items from a list or tuple."""
    if not isinstance(value, list | tuple):
        raise _wrong(name, "must be a list", value)
    return [convert(name, item) for item in value]


def integer_keys(name: str, value: object) -> dict[int, float]:
    """A new dict from integers to finite numbers."""
    if not isinstance(value, Mapping):
        raise _wrong(name, "must be an object that maps token ids to numbers", value)
    return {integer(name, key): number(name, item) for key, item in value.items()}


def shown(value: object) -> str:
    """The value as an error message may show it: short, on one line, and never itself an error."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value[:40] if isinstance(value, str) else value)
    return f"a {type(value).__name__}"


def _wrong(name: str, rule: str, value: object) -> RequestError:
    return RequestError(f"{name} {rule}, got {shown(value)}.", name)
