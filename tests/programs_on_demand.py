"""Engines in a test's process compile what they serve with, and the rest once a test waits for it.

Beside a test they would compile, in a fifth of its time, programs that it may never use, and which
of its steps runs in which would depend on the machine.
"""

import pytest

from engine.compiling.programs import Programs
from engine.compiling.shapes import StepShape

START, WAIT = Programs._start, Programs.wait
LATER = "shapes that are compiled later"


def compile_on_demand(patch: pytest.MonkeyPatch) -> None:
    """Until `patch` is undone."""
    patch.setattr(Programs, "_start", _start)
    patch.setattr(Programs, "wait", _wait)


def compile_at_once(patch: pytest.MonkeyPatch) -> None:
    """As without tests."""
    patch.setattr(Programs, "_start", START)
    patch.setattr(Programs, "wait", WAIT)


def _start(programs: Programs, shapes: list[StepShape]) -> None:
    if not programs.ready:
        START(programs, shapes)
    else:
        vars(programs)[LATER] = shapes


def _wait(programs: Programs) -> None:
    shapes = vars(programs).pop(LATER, [])
    if shapes and not programs._stop.is_set():
        START(programs, shapes)
    WAIT(programs)
