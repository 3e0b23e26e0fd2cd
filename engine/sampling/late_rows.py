"""Rows whose step runs, or has run, and whose next token waits for what their grammar allows.

    launched step ── add ──> its mask is here ── due ──> sampled
                        └──> tokens are forced, it ended or was preempted: forgotten

Owns who waits, and the logits that lie on the device meanwhile. How they are sampled is
`engine.sampling.late_sampling`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from engine.request import Request

_MOST_KEPT = 8  # arrays of 16 rows: 75 MiB where there are 152,064 tokens


@dataclass(slots=True, eq=False)
class LateRow:
    """One row of some of an earlier step's logits."""

    request: Request
    taken: Any  # float32[M, V] on the device
    row: int


class LateRows:
    """Those of one engine."""

    def __init__(self) -> None:
        self._rows: list[LateRow] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def full(self) -> bool:
        """Whether so much is kept for slow grammars that no more rows should run ahead."""
        return (
            len(self._rows) >= _MOST_KEPT and len({id(e.taken) for e in self._rows}) >= _MOST_KEPT
        )

    def add(self, rows: Sequence[LateRow]) -> None:
        """Keep what these are to be chosen from."""
        self._rows += rows

    def due(self) -> list[list[LateRow]]:
        """Rows that can be sampled now, those together that were taken together. Others whose
        logits nobody needs any more are forgotten."""
        self._rows = [each for each in self._rows if each.request.is_late]
        ready = [each for each in self._rows if not each.request.blocked]
        return [list(rows) for _, rows in groupby(ready, key=lambda each: id(each.taken))]

    def sampled(self, rows: Sequence[LateRow]) -> None:
        """Tokens of these are on their way."""
        for each in rows:
            each.request.num_in_flight += 1
        self._rows = [each for each in self._rows if each.request.is_late]
