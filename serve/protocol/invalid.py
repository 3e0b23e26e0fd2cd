"""A value of a request that does not fit, as the client's error."""

import re
from typing import Any

import msgspec

from engine.errors import RequestError
from engine.misfit import misfit


def invalid(error: msgspec.ValidationError, kind: Any, where: str = "") -> RequestError:
    """The error of a value that was to be a `kind`, itself at `where` in the request."""
    place, what = misfit(error, kind, where)
    sentence = f"{place[:100] or 'The body'} {what}."
    return RequestError(sentence, re.split(r"[.\[]", place)[0] if place else None)
