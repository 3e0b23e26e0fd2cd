"""Requests that have no slot yet, in the order in which they will get one."""

import heapq

from engine.request import Request


class WaitingQueue:
    """By priority, then first come first served; removal is lazy.

    A preempted request keeps its arrival, so it comes back before anyone who came later.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[int, int], Request]] = []
        self._members: set[int] = set()

    def __len__(self) -> int:
        return len(self._members)

    def push(self, request: Request) -> None:
        heapq.heappush(self._heap, (request.order, request))
        self._members.add(request.request_id)

    def peek(self) -> Request | None:
        while self._heap and self._heap[0][1].request_id not in self._members:
            heapq.heappop(self._heap)
        return self._heap[0][1] if self._heap else None

    def first(self, count: int) -> list[Request]:
        """The first `count` in order, or all if there are fewer."""
        live = (entry for entry in self._heap if entry[1].request_id in self._members)
        return [request for _, request in heapq.nsmallest(count, live, key=lambda entry: entry[0])]

    def discard(self, request: Request) -> None:
        self._members.discard(request.request_id)
