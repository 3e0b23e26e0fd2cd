"""Requests with a grammar, between the scheduler and the threads that know what may follow.

    add ── compiled ──> scheduler ── a token is read ──> advance ── next mask ──> scheduler ...

Tokens that a grammar forces are appended as if they had been sampled, and computed with the next
step as a piece of a prompt is. Owns what an outcome means to a request, its end included.
"""

from collections.abc import Iterable, Sequence

from engine.grammar.background import ConstraintThreads, Outcome
from engine.messages import RequestDelta
from engine.request import Request, Status
from engine.scheduling.scheduler import Scheduler

_LONGEST_WAIT = 0.005  # seconds for masks while the device computes
_IDLE_WAIT = 0.01  # seconds, when there is nothing else to do


class ConstrainedRequests:
    """Those of one scheduler."""

    def __init__(self, threads: ConstraintThreads, scheduler: Scheduler) -> None:
        self._threads = threads
        self._scheduler = scheduler

    @property
    def num_builds(self) -> int:
        """Requests whose grammar is being compiled; the scheduler does not have them yet."""
        return self._threads.num_builds

    def add(self, request: Request, source: str) -> None:
        """Compile the request's grammar, then schedule it."""
        self._threads.build(request, source)

    def abort(self, request_ids: Iterable[int]) -> None:
        self._threads.forget(request_ids)

    def advance(self, requests: Iterable[Request]) -> None:
        """Tokens of these were read; those that have a grammar and go on need their next mask."""
        going_on = [r for r in requests if r.constraint and r.status is not Status.FINISHED]
        if going_on:
            self._threads.advance(going_on)

    def settle(self, seconds: float) -> list[RequestDelta]:
        """Let rows go on whose masks are here, after waiting so long at most for all of them.

        Returns what there is to say of requests that ended.
        """
        return self._apply(self._threads.collect_moved(min(seconds, _LONGEST_WAIT)))

    def wait(self) -> list[RequestDelta]:
        """The same when there is nothing else to do: wait a little for the first."""
        return self._apply(self._threads.collect_any(_IDLE_WAIT))

    def _apply(self, outcomes: Iterable[Outcome]) -> list[RequestDelta]:
        return [delta for outcome in outcomes if (delta := self._outcome(outcome))]

    def _outcome(self, outcome: Outcome) -> RequestDelta | None:
        request = outcome.request
        is_new = outcome.built
        if (is_new and not self._threads.started(request)) or request.status is Status.FINISHED:
            return None
        delta = _end(request, outcome)
        if is_new and delta is None:
            self._scheduler.add(request)
        elif delta is not None and not is_new:
            self._scheduler.finish(request)
        return delta


def _end(request: Request, outcome: Outcome) -> RequestDelta | None:
    """Append what is forced; what there is to say if the request ends with it."""
    constraint = request.constraint
    if outcome.error is not None or constraint is None:
        return RequestDelta(
            request_id=request.request_id,
            finish_reason="error",
            error=f"The grammar cannot be followed: {outcome.error}.",
            error_param="structured_outputs",
        )
    room = request.max_tokens - len(request.token_ids)
    kept, stop = _until_stop(request, outcome.forced[:room])
    request.token_ids += kept
    complete = constraint.finished and len(kept) == len(outcome.forced) and stop is None
    constraint.ready = True
    if stop is None and not complete and request.wants_more:
        return None
    delta = RequestDelta(
        request_id=request.request_id,
        finish_reason="length" if stop is None and not complete else "stop",
        stop_token_id=stop,
        complete=complete,
    )
    report(request, delta)
    return delta


def _until_stop(request: Request, forced: Sequence[int]) -> tuple[Sequence[int], int | None]:
    """What is forced up to a token that the request stops at, and that token."""
    stops = request.params.stop_token_ids or ()
    for place, token in enumerate(forced):
        if token in stops and request.num_generated + place + 1 >= request.params.min_tokens:
            return forced[: place + 1], token
    return forced, None


def report(request: Request, delta: RequestDelta) -> None:
    """Say in `delta` all tokens that were generated and not said yet."""
    if request.num_reported == 0:
        delta.queue_seconds = request.queue_seconds
        delta.num_cached_tokens = request.num_cached_tokens
        delta.num_external_tokens = request.num_external_tokens
    delta.new_token_ids = request.token_ids[request.num_prompt_tokens + request.num_reported :]
    request.num_reported = request.num_generated
