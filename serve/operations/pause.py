"""The operator's pauses, until whose end requests that want something computed are not begun.

One whose server drains, or has lost its engine, waits no longer: it is told so.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from engine.errors import OverloadedError
from engine.messages import MemoryChange, Release
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
        self._held = self._num_updates = 0

    @property
    def is_on(self) -> bool:
        return not self._over.is_set()

    @property
    def is_open_ended(self) -> bool:
        """Whether it lasts until somebody ends it."""
        return self.is_for("paused") or self.is_for("asleep")

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

    def dissolve(self) -> None:
        """Nobody will end it any more: those that wait go on, or hear why they cannot."""
        self._reasons.clear()
        self._over.set()

    @contextmanager
    def updating(self) -> Iterator[None]:
        """Meanwhile requests wait; of several at once until the last has ended."""
        self._num_updates += 1
        self.begin("updating")
        try:
            yield
        finally:
            self._num_updates -= 1
            if not self._num_updates:
                self.end("updating")

    async def change_memory(self, client: EngineClient, message: MemoryChange) -> None:
        """Have the engine do this. Requests wait while memory is gone, and not for it while all is
        there, also where the caller has left. Raises as `client.change_memory`."""
        change = client.change_memory(message)
        if isinstance(message, Release):
            self.begin("asleep")
        change.add_done_callback(lambda _: self._see(client))
        await asyncio.shield(change)

    def _see(self, client: EngineClient) -> None:
        if client.resident:
            self.end("asleep")
        else:
            self.begin("asleep")

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
