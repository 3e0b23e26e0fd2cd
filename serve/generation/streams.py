"""What the engine said about one HTTP request and its route has not read yet.

    engine ──put──▶ {choice: delta} ──async for──▶ route

At most one delta a choice is kept: when the reader is slow, the next one is merged into it, so a
client that does not read costs memory for its own tokens and nothing else. With an interval of N
tokens a choice's first and last are read at once, and those between at least N at a time.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from engine.outputs import OutputDelta, PositionLogprobs, PromptScores
from engine.vectors.routed_rows import Experts
from models.errors import IngotError
from serve.errors import error_of
from serve.operations.metrics import Timeline

T = TypeVar("T", list[PositionLogprobs], PromptScores, list[bytes], list[Experts], list[int])


class RequestStream:
    """The choices of one HTTP request; prompt p of n samples has choices p*n .. p*n + n - 1.

    Iterating gives `{choice: delta}` until every choice has finished, and raises what `fail` was
    given, or the error of the first choice that the engine could not serve.
    """

    def __init__(
        self,
        request_ids: Sequence[str],
        samples: int,
        on_shown: Callable[[float], None] = lambda _: None,
        interval: int = 1,
    ) -> None:
        """`on_shown` is told how many seconds each piece took from the engine to the client."""
        self.request_ids = list(request_ids)
        self.timelines: list[Timeline] = []  # of all choices, in their order
        self._offsets = {name: position * samples for position, name in enumerate(request_ids)}
        self._unfinished = len(request_ids) * samples
        self._unread: dict[int, OutputDelta] = {}
        self._interval = interval
        self._begun: set[int] = set()  # choices of which something was read
        self._due = False  # whether something unread need not wait for more
        self._error: IngotError | None = None
        self._waiter: asyncio.Future[None] | None = None  # the reader's, once all is read
        self._on_shown = on_shown
        self._unread_since = self._read_since = 0.0  # when the engine sent it; 0 is never

    @property
    def finished(self) -> bool:
        """Whether the engine has nothing more to say."""
        return self._unfinished == 0 or self._error is not None

    def put(self, delta: OutputDelta, sent_at: float = 0.0) -> None:
        """Take what one step, whose report the engine sent at that time, added to one choice."""
        if delta.finish_reason == "error":
            self.fail(error_of(delta))
            return
        choice = self._offsets[delta.request_id] + delta.index
        unread = self._unread.get(choice)
        if unread is None:
            self._unread[choice] = unread = delta
        else:
            absorb(unread, delta)
        self._unfinished -= delta.finish_reason is not None
        if self._is_due(choice, unread):
            self._due = True
            self._unread_since = self._unread_since or sent_at
            self._wake()

    def fail(self, error: IngotError) -> None:
        """End the stream with `error`, after what is unread."""
        self._error = self._error or error
        self._wake()

    def shown(self) -> None:
        """What was read last is on its way to the client."""
        if self._read_since:
            self._on_shown(time.monotonic() - self._read_since)
            self._read_since = 0.0

    async def __aiter__(self) -> AsyncIterator[dict[int, OutputDelta]]:
        while True:
            if not self._due and not self.finished:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
            unread = self._take()
            if unread:
                self._read_since, self._unread_since = self._unread_since, 0.0
                yield unread
            elif self._error is not None:
                raise self._error
            elif self.finished:
                return

    def _is_due(self, choice: int, unread: OutputDelta) -> bool:
        if self._interval == 1 or choice not in self._begun:
            return True
        return unread.finish_reason is not None or len(unread.token_ids) >= self._interval

    def _take(self) -> dict[int, OutputDelta]:
        """What is to be read now; everything if an error follows."""
        unread, self._unread, self._due = self._unread, {}, False
        if self._interval > 1:
            if self._error is None:
                due = {c: delta for c, delta in unread.items() if self._is_due(c, delta)}
                self._unread = {c: delta for c, delta in unread.items() if c not in due}
                unread = due
            self._begun |= unread.keys()
        return unread

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def collect(stream: RequestStream) -> dict[int, OutputDelta]:
    """Everything the stream has to say, one delta a choice; raises what the stream raises."""
    whole: dict[int, OutputDelta] = {}
    async for deltas in stream:
        for choice, delta in deltas.items():
            if choice in whole:
                absorb(whole[choice], delta)
            else:
                whole[choice] = delta
    return whole


def absorb(delta: OutputDelta, later: OutputDelta) -> None:
    """Make `delta` stand for itself and the `later` one of the same choice."""
    text, delta.text = delta.text, ""  # a string that nobody else holds grows in place
    text += later.text
    delta.text = text
    delta.token_ids += later.token_ids
    delta.logprobs = _joined(delta.logprobs, later.logprobs)
    delta.prompt_logprobs = _joined(delta.prompt_logprobs, later.prompt_logprobs)
    delta.hidden_states = _joined(delta.hidden_states, later.hidden_states)
    delta.routed_experts = _joined(delta.routed_experts, later.routed_experts)
    delta.alignment = delta.alignment or later.alignment
    delta.finish_reason = later.finish_reason
    delta.stop_reason = later.stop_reason
    if later.num_drafted:
        delta.num_drafted += later.num_drafted
        delta.accepted = _joined(delta.accepted, later.accepted)
    if later.num_cached_tokens:  # said once, behind the scores of a prompt that were ready before
        delta.num_cached_tokens = later.num_cached_tokens
        delta.num_external_tokens = later.num_external_tokens


def _joined(first: T | None, second: T | None) -> T | None:
    if first is None or second is None:
        return second if first is None else first
    first += second
    return first
