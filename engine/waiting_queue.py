"""Requests that have no slot yet, in the order in which they will get one."""

import heapq
from itertools import count

from engine.request import Request

_Entry = tuple[tuple[int, int], int, Request]


class WaitingQueue:
    """By priority, then first come first served; removal is lazy.

    A preempted request keeps its arrival, so it comes back before anyone who came later.
    """

    def __init__(self) -> None:
        self._heap: list[_Entry] = []
        self._serials = count()
        self._members: dict[int, int] = {}  # request id: serial of its entry; others are stale

    def __len__(self) -> int:
        return len(self._members)

    def push(self, request: Request) -> None:
        serial = next(self._serials)
        heapq.heappush(self._heap, (request.order, serial, request))
        self._members[request.request_id] = serial

    def peek(self) -> Request | None:
        while self._heap and not self._is_live(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def first(self, count: int) -> list[Request]:
        """The first `count` in order, or all if there are fewer."""
        return [
            request for *_, request in heapq.nsmallest(count, filter(self._is_live, self._heap))
        ]

    def discard(self, request: Request) -> None:
        self._members.pop(request.request_id, None)

    def _is_live(self, entry: _Entry) -> bool:
        _, serial, request = entry
        return self._members.get(request.request_id) == serial
