"""Responses that can be asked for again, and gone on with.

They are kept in memory, the least recently used go first, and none outlives the server.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from engine.errors import NotFoundError
from serve.protocol_chat import ChatMessage
from serve.responses.protocol import ResponseObject

MAX_RESPONSES = 1000
MAX_CHARACTERS = 64 * 2**20  # of all conversations together


@dataclass
class Stored:
    """A response, the conversation up to its end, and the task that still works on it."""

    response: ResponseObject
    turns: list[ChatMessage] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    @property
    def size(self) -> int:
        """Characters."""
        return sum(len(turn.text) for turn in self.turns)


class ResponseStore:
    """Responses by id."""

    def __init__(self) -> None:
        self._stored: OrderedDict[str, Stored] = OrderedDict()

    def put(self, stored: Stored) -> None:
        """Keep it, and let go of others if it is too much."""
        self._stored[stored.response.id] = stored
        self._stored.move_to_end(stored.response.id)
        while len(self._stored) > MAX_RESPONSES or (
            len(self._stored) > 1 and sum(s.size for s in self._stored.values()) > MAX_CHARACTERS
        ):
            self._stored.popitem(last=False)

    def get(self, response_id: str, param: str = "response_id") -> Stored:
        """Raises NotFoundError."""
        stored = self._stored.get(response_id)
        if stored is None:
            raise NotFoundError(
                f"There is no response {response_id[:80]!a} here (any more).", param
            )
        self._stored.move_to_end(response_id)
        return stored

    def delete(self, response_id: str) -> None:
        """Raises NotFoundError."""
        self.get(response_id)
        del self._stored[response_id]
