"""Answers that go round in circles: `repetition_detection`, as vLLM has it.

    a b c  x y  x y  x y        pattern x y, size 2, three times in a row

Owns what may be asked and the search, which costs the same for each token, however long the answer
is and however often a pattern is to come. Knows nothing of texts and requests.
"""

from collections.abc import Mapping
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.errors import RequestError
from engine.plain_values import integer, shown

MAX_PATTERN_SIZE = 4096  # tokens; a step of the search is a few operations on so many numbers
_MAX_COUNT = 2**31 - 1
_NEVER = 2**62


class RepetitionDetectionParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ends an answer whose last tokens are one pattern, `min_count` times in a row.

    Patterns of `min_pattern_size` (0 is 1) to `max_pattern_size` tokens are looked for; with a
    maximum of 0 none are.
    """

    max_pattern_size: int = 0
    min_pattern_size: int = 0
    min_count: int = 0


class Repetition:
    """One answer, watched for patterns. It takes no memory before its first token, for many answers
    may wait; then up to 150 KB."""

    def __init__(self, params: RepetitionDetectionParams) -> None:
        self._params = params
        self._largest = params.max_pattern_size
        self._at = 0

    @cached_property
    def _needed(self) -> NDArray[np.int64]:
        sizes = np.arange(1, self._largest + 1)
        whole = sizes * (self._params.min_count - 1)
        return np.where(sizes < self._params.min_pattern_size, _NEVER, whole)

    @cached_property
    def _runs(self) -> NDArray[np.int64]:
        """How many tokens up to now were each what stood that far before it."""
        return np.zeros(self._largest, np.int64)

    @cached_property
    def _recent(self) -> NDArray[np.int64]:
        """The newest at `_at`, older ones behind it; twice, so that they never wrap around."""
        return np.full(2 * self._largest, -1, np.int64)

    def sees(self, token_id: int) -> bool:
        """Whether a pattern has come often enough with this token."""
        before = self._recent[self._at : self._at + self._largest]
        self._runs = np.where(before == token_id, self._runs + 1, 0)
        self._at = (self._at - 1) % self._largest
        self._recent[self._at] = self._recent[self._at + self._largest] = token_id
        return bool((self._runs >= self._needed).any())


def repetition_detection(name: str, value: object) -> RepetitionDetectionParams:
    """From the struct, or from a dict of its fields; raises `RequestError`."""
    fields = RepetitionDetectionParams.__struct_fields__
    if isinstance(value, RepetitionDetectionParams):
        value = msgspec.structs.asdict(value)
    if not isinstance(value, Mapping) or not value.keys() <= set(fields):
        raise RequestError(f"{name} must have {', '.join(fields)}, got {shown(value)}.", name)
    found = RepetitionDetectionParams(**{each: integer(name, value[each]) for each in value})
    smallest, largest = found.min_pattern_size, found.max_pattern_size
    if not 0 <= smallest <= largest <= MAX_PATTERN_SIZE:
        raise RequestError(
            f"{name} needs 0 <= min_pattern_size <= max_pattern_size <= {MAX_PATTERN_SIZE}, got "
            f"{shown(smallest)} and {shown(largest)}.",
            name,
        )
    if largest and not 2 <= found.min_count <= _MAX_COUNT:
        raise RequestError(
            f"{name} needs a min_count of at least 2, got {shown(found.min_count)}; a "
            "max_pattern_size of 0 looks for nothing.",
            name,
        )
    return found
