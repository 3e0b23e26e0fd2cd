"""Sequences that are in the engine for their vectors, and who waits for each.

Owns the ids under which the engine knows them. Knows neither HTTP nor what a vector is.
"""

import asyncio
from collections.abc import Sequence
from itertools import count

from engine.messages import PoolRequest, RequestDelta
from engine.pooling.inputs import PoolInput
from engine.pooling_params import PoolingParams
from models.errors import IngotError
from serve.errors import error_of
from serve.operations.metrics import Metrics, Timeline

Waiter = asyncio.Future[bytes]


class PoolsInFlight:
    """All of one engine."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._ids = count()
        self._waiters: dict[int, tuple[Waiter, Timeline]] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def start(
        self, inputs: Sequence[PoolInput], params: PoolingParams, priority: int = 0
    ) -> tuple[list[PoolRequest], list[Waiter]]:
        """The messages to send, and a future for the vector of each."""
        loop, requests, waiters = asyncio.get_running_loop(), [], []
        for each in inputs:
            request = PoolRequest(
                request_id=next(self._ids), prompt_token_ids=each.token_ids, params=params,
                token_type_ids=each.token_type_ids, priority=priority,
            )  # fmt: skip
            waiter: Waiter = loop.create_future()
            self._waiters[request.request_id] = waiter, Timeline(len(each.token_ids))
            requests.append(request)
            waiters.append(waiter)
        return requests, waiters

    def deliver(self, delta: RequestDelta) -> bool:
        """Hand an answer over; False if it is not one of a vector's."""
        if delta.request_id not in self._waiters:
            return False
        waiter, timeline = self._waiters.pop(delta.request_id)
        if delta.vector is not None:
            self._metrics.prompt_known(timeline)
        self._metrics.finished(timeline, delta.finish_reason or "stop")
        if waiter.done():
            return True
        if delta.vector is None:
            waiter.set_exception(error_of(delta))
        else:
            waiter.set_result(delta.vector)
        return True

    def forget(self, requests: Sequence[PoolRequest]) -> list[int]:
        """Drop what has not been answered; returns the ids that are to be aborted."""
        ids = [each.request_id for each in requests if each.request_id in self._waiters]
        for each in ids:
            waiter, timeline = self._waiters.pop(each)
            waiter.cancel()
            self._metrics.finished(timeline, "abort")
        return ids

    def fail(self, error: IngotError) -> None:
        """End everything with `error`."""
        for waiter, _ in self._waiters.values():
            if not waiter.done():
                waiter.set_exception(error)
