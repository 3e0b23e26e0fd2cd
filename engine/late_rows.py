"""Rows whose step runs, or has run, and whose next token waits for what their grammar allows.

    launched step ── add ──> its mask is here ── due ──> sampled
                        └──> tokens are forced, it ended or was preempted: forgotten

Owns who waits, and the logits that lie on the device meanwhile. How they are sampled is
`engine.late_sampling`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from engine.plan import Plan
from engine.request import Request


@dataclass(slots=True, eq=False)
class LateRow:
    """One row of the logits of an earlier step."""

    request: Request
    logits: Any  # float32[1, B, V] on the device
    row: int


class LateRows:
    """Those of one engine."""

    def __init__(self) -> None:
        self._rows: list[LateRow] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, plan: Plan, logits: Any) -> None:
        """Keep what the late rows of a plan are to be chosen from."""
        row = len(plan.decoding)
        for chunk in plan.chunks:
            row += chunk.num_logit_rows
            if chunk.late:
                self._rows.append(LateRow(chunk.request, logits, row - 1))

    def due(self) -> list[list[LateRow]]:
        """Rows that can be sampled now, those of one step together. Others whose logits nobody
        needs any more are forgotten."""
        self._rows = [each for each in self._rows if each.request.is_late]
        ready = [each for each in self._rows if not each.request.blocked]
        return [list(rows) for _, rows in groupby(ready, key=lambda each: id(each.logits))]

    def sampled(self, rows: Sequence[LateRow]) -> None:
        """Tokens of these are on their way."""
        for each in rows:
            each.request.num_in_flight += 1
        self._rows = [each for each in self._rows if each.request.is_late]
