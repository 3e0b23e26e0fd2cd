"""Requests that have no slot yet, in the order in which they will get one."""

import heapq
from itertools import count

from engine.request import Request

_MOST_STALE = 64  # entries that nobody may come by, while the first keeps waiting
_MOST_ASIDE = 64  # in a step: each is put into the queue again
_Entry = tuple[tuple[int, int], int, Request]


class WaitingQueue:
    """By priority, then first come first served; removal is lazy.

    A preempted request keeps its arrival, so it comes back before anyone who came later.
    """

    def __init__(self) -> None:
        self._heap: list[_Entry] = []
        self._serials = count()
        self._members: dict[int, int] = {}  # request id: serial of its entry; others are stale
        self._aside: dict[int, Request] = {}

    def __len__(self) -> int:
        return len(self._members) + len(self._aside)

    def begin_step(self) -> None:
        """Another step is planned from now on."""
        aside, self._aside = self._aside, {}
        for request in aside.values():
            self.push(request)

    def set_aside(self, request: Request) -> bool:
        """Let others pass who waits for more than a slot, until the next step; False if so many
        were that nobody else should be looked at."""
        self.discard(request)
        self._aside[request.request_id] = request
        return len(self._aside) < _MOST_ASIDE

    def push(self, request: Request) -> None:
        serial = next(self._serials)
        heapq.heappush(self._heap, (request.order, serial, request))
        self._members[request.request_id] = serial

    def peek(self) -> Request | None:
        """Who gets the next slot; None if nobody waits."""
        while self._heap and not self._is_live(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def first(self, count: int) -> list[Request]:
        """The first `count` in order, or all if there are fewer; what else waits costs nothing."""
        found: list[Request] = []
        heap = self._heap
        frontier = [(heap[0], 0)] if heap else []  # entries whose parents were looked at
        while frontier and len(found) < count:
            entry, place = heapq.heappop(frontier)
            if self._is_live(entry):
                found.append(entry[2])
            for child in range(2 * place + 1, min(2 * place + 3, len(heap))):
                heapq.heappush(frontier, (heap[child], child))
        return found

    def all(self) -> list[Request]:
        """Everybody who waits, in no order."""
        return [entry[2] for entry in self._heap if self._is_live(entry)] + [*self._aside.values()]

    def discard(self, request: Request) -> None:
        self._members.pop(request.request_id, None)
        self._aside.pop(request.request_id, None)
        if len(self._heap) > _MOST_STALE + 2 * len(self._members):
            self._heap = list(filter(self._is_live, self._heap))
            heapq.heapify(self._heap)

    def _is_live(self, entry: _Entry) -> bool:
        _, serial, request = entry
        return self._members.get(request.request_id) == serial
