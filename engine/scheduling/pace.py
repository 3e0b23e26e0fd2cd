"""How many turns of decode the device may be given at once, so that nobody waits long for it.

Where --num-scheduler-steps is auto: as many as programs do within `LONGEST`, by the time that the
newest step of so many rows took for each of its turns; none before one was timed. A window that
takes more than half of it is alone on the device, and what the host does before the next is little
beside it; shorter ones follow each other as steps do.

Owns those times. Knows no requests.
"""

from collections.abc import Iterable
from time import perf_counter

from engine.compiling.programs import Programs
from engine.runner import Launched

LONGEST = 0.1  # seconds that a request which comes waits for the steps before its own at most


class Pace:
    """Seconds that a turn takes, by the rows of its program."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._turns: dict[int, float] = {}
        self._read_at = 0.0

    def windows(self, rows: int) -> list[int]:
        """As `Programs.windows`: those that do not take too long."""
        seconds = self._turn(self._programs.shapes.smallest_decode(rows).rows)
        return [window for window in self._programs.windows(rows) if window * seconds <= LONGEST]

    def is_full(self, launched: Iterable[Launched]) -> bool:
        """Whether one of these is a window beside which there is no time for another."""
        windows = [each for each in launched if each.plan.window > 1]
        return any(2 * w.plan.window * self._turn(w.shape.rows) > LONGEST for w in windows)

    def has_read(self, launched: Launched) -> None:
        """Time a step whose results have just arrived; the one before it was read first."""
        now = perf_counter()
        began = max(launched.started, self._read_at)
        self._read_at = now
        if launched.shape.decode:
            self._turns[launched.shape.rows] = (now - began) / launched.plan.window

    def _turn(self, rows: int) -> float:
        return self._turns.get(rows, LONGEST)
