"""What is asked of the profiler, under the names of vLLM and SGLang."""

import re
from collections.abc import Sequence

import msgspec

from engine.errors import RequestError

_PREFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_HOST, _DEVICES = "CPU", "GPU"  # SGLang's names, the second of whatever devices there are


class ProfileRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One trace. None always means "as if it were not sent"."""

    num_steps: int | None = None  # after which it ends by itself; 0 is never
    delay_steps: int | None = None  # that are not traced, before those that are; vLLM's
    start_step: int | None = None  # the same, counted from the engine's start; SGLang's
    output_dir: str | None = None  # in the profiler's own directory
    profile_prefix: str | None = None  # of the trace's folder
    activities: Sequence[str] | None = None  # what is traced: the devices, the host too
    with_stack: bool | None = None  # Python's functions, too

    @property
    def of_host(self) -> bool:
        return self.activities is None or _HOST in self.activities

    def check(self) -> None:
        """Raise RequestError naming the field at fault."""
        for name in ("num_steps", "delay_steps", "start_step"):
            if not 0 <= (getattr(self, name) or 0) < 2**31:
                raise RequestError(f"{name} must be a number of steps, at least 0.", name)
        if self.delay_steps is not None and self.start_step is not None:
            raise RequestError("delay_steps and start_step say the same; send one.", "start_step")
        if self.activities is not None and (
            _DEVICES not in self.activities or {*self.activities} - {_HOST, _DEVICES}
        ):
            raise RequestError(
                'activities are ["CPU", "GPU"], or ["GPU"]: the devices, whatever they are, are '
                "always traced, and memory is not.",
                "activities",
            )
        if self.with_stack and not self.of_host:
            raise RequestError('with_stack needs "CPU" among the activities.', "with_stack")
        if self.profile_prefix is not None and not _PREFIX.fullmatch(self.profile_prefix):
            raise RequestError(
                "profile_prefix begins the name of a folder: letters, digits, '_', '-' and '.', "
                "at most 64.",
                "profile_prefix",
            )
