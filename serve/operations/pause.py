"""The operator's pauses, until whose end requests that want something computed are not begun.

One whose server drains, or has lost its engine, waits no longer: it is told so.
"""

import asyncio
from contextlib import suppress
from typing import Literal

from engine.errors import OverloadedError
from serve.engine_client import EngineClient

Why = Literal["paused", "asleep", "updating"]
MAX_HELD = 1024  # requests that wait for the end of a pause
_LOOK_SECONDS = 1.0  # how often they look whether there is still an engine


class Pause:
    """Of one server."""

    def __init__(self) -> None:
        self._over = asyncio.Event()
        self._over.set()
        self._reasons: set[Why] = set()
        self._held = 0

    @property
    def is_on(self) -> bool:
        return not self._over.is_set()

    def is_for(self, why: Why) -> bool:
        """Whether this is a reason, among others perhaps."""
        return why in self._reasons

    def begin(self, why: Why = "paused") -> None:
        """From now on requests wait."""
        self._reasons.add(why)
        self._over.clear()

    def end(self, why: Why = "paused") -> None:
        """Those that wait go on, if nothing else holds them."""
        self._reasons.discard(why)
        if not self._reasons:
            self._over.set()

    async def passed(self, client: EngineClient) -> None:
        """Return when it is over; raises OverloadedError where too many wait for that."""
        if not self.is_on:
            return
        if self._held >= MAX_HELD:
            raise OverloadedError(f"The server is paused, and {MAX_HELD} requests wait already.")
        self._held += 1
        try:
            while self.is_on and client.state == "ready":
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), _LOOK_SECONDS)
        finally:
            self._held -= 1
