"""What goes to the engine: all messages of a turn of the event loop together, in their order.

A message that cannot be written (a number that no frame holds, too many bytes) takes no other
along: whoever sent it is told, and the rest goes.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from engine.messages import ToEngine
from serve.engine_process import EngineLink

logger = logging.getLogger("ingot.serve")


class Outbox:
    """To one engine after another; without a `link` what is put in is lost."""

    def __init__(self, on_unsent: Callable[[ToEngine, Exception], None]) -> None:
        """`on_unsent` is told of each message that could not be sent, and why."""
        self.link: EngineLink | None = None
        self.is_owed = False  # an answer; each message has one. Whoever hears the engine clears it
        self._waiting: list[ToEngine] = []
        self._on_unsent = on_unsent

    def put(self, messages: Sequence[ToEngine]) -> None:
        """Send these soon."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting += messages

    def clear(self) -> None:
        """The engine is gone, and nothing is to be said to the next."""
        self.link, self.is_owed, self._waiting = None, False, []

    def _flush(self) -> None:
        messages, self._waiting, link = self._waiting, [], self.link
        if link is None:
            return
        for message in messages:
            try:
                link.send(message)
            except Exception as error:
                logger.exception("A message to the engine could not be written.")
                self._on_unsent(message, error)
            else:
                self.is_owed = True
