"""Responses that can be asked for again, and gone on with.

They are kept in memory, of those that are complete the least recently used go first, and none
outlives the server.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

import msgspec

from engine.errors import NotFoundError, RequestError
from serve.responses.event_log import EventLog
from serve.responses.protocol import InputItem, ResponseObject

MAX_RESPONSES = 1000
MAX_BYTES = 64 * 2**20  # of all of them together, as JSON


@dataclass
class Stored:
    """A response, what it was made of, whose it is, and the task that still works."""

    response: ResponseObject
    # what each response before it was given and gave, in turns, and its own input
    parts: list[list[InputItem]] = field(default_factory=list)
    owner: str = ""
    task: asyncio.Task[None] | None = None
    log: EventLog | None = None  # of one that is streamed meanwhile
    num_bytes: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """Nobody else's response has its id in their eyes."""
        return self.owner, self.response.id

    @property
    def items(self) -> list[InputItem]:
        """Its input, and what that went on with."""
        return [item for part in self.parts for item in part]

    def whole(self) -> list[list[InputItem]]:
        """The conversation up to its end; what was a turn of its own stays one."""
        output = [msgspec.convert(item, InputItem) for item in self.response.output]
        return [*self.parts, output]

    def measure(self) -> None:
        """Count its bytes; what it holds has changed."""
        events = self.log.events if self.log else []
        held = (self.response, self.parts, events)
        self.num_bytes = sum(len(msgspec.json.encode(each)) for each in held)


class ResponseStore:
    """Responses by id."""

    def __init__(self) -> None:
        self._stored: OrderedDict[tuple[str, str], Stored] = OrderedDict()  # by owner and id
        self._num_bytes = 0

    def put(self, stored: Stored) -> None:
        """Keep it, and let go of others if it is too much."""
        self.delete(stored)
        stored.measure()
        self._stored[stored.key] = stored
        self._num_bytes += stored.num_bytes
        for other in list(self._stored.values())[:-1]:
            if len(self._stored) <= MAX_RESPONSES and self._num_bytes <= MAX_BYTES:
                break
            if other.task is None:  # who works on one that is forgotten would do so for nobody
                self.delete(other)

    def get(self, response_id: str, owner: str = "", param: str = "response_id") -> Stored:
        """Raises NotFoundError, for a response of another owner too."""
        stored = self._stored.get((owner, response_id))
        if stored is None:
            raise NotFoundError(
                f"There is no response {response_id[:80]!a} here (any more).", param
            )
        self._stored.move_to_end(stored.key)
        return stored

    def check_free(self, response_id: str, owner: str) -> None:
        """Raise RequestError for the id of one that is kept."""
        if (owner, response_id) in self._stored:
            raise RequestError(
                f"There is a response {response_id[:80]!a} here; delete it, or send another "
                "request_id.",
                "request_id",
            )

    def delete(self, stored: Stored) -> None:
        """Forget what has its id, if something has."""
        if (found := self._stored.pop(stored.key, None)) is not None:
            self._num_bytes -= found.num_bytes
