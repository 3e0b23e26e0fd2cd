"""Decides how many tokens each request gets in the next step.

No phases: every request asks for `num_tokens - num_computed` tokens, running requests first, then
waiting ones, until the step's tokens, its rows of logits, the slots or the pages run out. Chunked
prefill, decode and recomputation after a preemption are all this one rule. The scheduler owns
requests, slots and pages, and knows no array.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from time import monotonic

from engine.block_pool import BlockPool
from engine.request import Request, Status
from engine.waiting_queue import WaitingQueue

_NONE = range(0)


@dataclass(slots=True)
class Chunk:
    """Tokens start .. start+count-1 of one request, to be computed in a step."""

    request: Request
    start: int
    count: int
    samples: bool  # the last one's logits choose the next token
    scored: range  # positions whose logits score the prompt token after them
    slot: int
    admitted: bool  # the request took its slot in this step

    @property
    def num_logit_rows(self) -> int:
        return len(self.scored) + self.samples


@dataclass(slots=True)
class Plan:
    """One step: its chunks, decode rows first."""

    chunks: list[Chunk] = field(default_factory=list)
    num_tokens: int = 0
    decode: bool = True  # each row has one token and samples: the shape of a decode program


class Scheduler:
    """Requests between admission and their end."""

    def __init__(
        self, pool: BlockPool, *, page_size: int, max_num_seqs: int, max_num_batched_tokens: int
    ) -> None:
        self.pool = pool
        self.waiting = WaitingQueue()
        self.running: list[Request] = []
        self.num_preemptions = 0
        self._requests: dict[int, Request] = {}
        self._page_size = page_size
        self._max_rows = max_num_seqs
        self._max_tokens = max_num_batched_tokens
        self._free_slots = list(range(max_num_seqs - 1, -1, -1))

    @property
    def has_requests(self) -> bool:
        return bool(self._requests)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._requests

    def add(self, request: Request) -> None:
        self._requests[request.request_id] = request
        self.waiting.push(request)

    def abort(self, request_ids: Iterable[int]) -> list[Request]:
        """End these now; their pages and slots are free at once. Unknown ids are ignored."""
        found = [self._requests[i] for i in request_ids if i in self._requests]
        for request in found:
            self.finish(request)
        return found

    def finish(self, request: Request) -> None:
        """Give back what the request owns. Steps in flight may still name it; that is harmless,
        since the device runs them before any step that reuses its pages or slot."""
        if request.status is Status.RUNNING:
            self.running.remove(request)
            self._give_back(request)
        else:
            self.waiting.discard(request)
        request.status = Status.FINISHED
        del self._requests[request.request_id]

    def schedule(self) -> Plan:
        """The next step's plan; requests are moved on as if it had been computed."""
        step = _StepBudget(self._max_tokens, self._max_rows)
        for request in sorted(self.running, key=_decode_first):
            if request.status is Status.RUNNING and request.wants_more and step.open:
                self._continue(request, step)
        while step.open and self._free_slots and (first := self.waiting.peek()):
            if not self._admit(first, step):
                break
        for chunk in step.plan.chunks:
            chunk.request.num_computed += chunk.count
            chunk.request.num_in_flight += chunk.samples
        return step.plan

    def undo(self, plan: Plan) -> None:
        """Take back the newest plan, which was not computed; its requests begin again."""
        for chunk in plan.chunks:
            chunk.request.num_in_flight -= chunk.samples
            chunk.request.num_prompt_logprobs -= len(chunk.scored)
            if chunk.request.status is Status.RUNNING:
                self._preempt(chunk.request)

    def _continue(self, request: Request, step: "_StepBudget") -> None:
        """Give a running request its tokens, preempting others, or itself, for pages."""
        end = request.num_computed + step.most_tokens(request)
        while not self._grow(request, end):
            victim = max(self._preemptible(step), key=lambda r: r.order)
            self._preempt(victim)
            if victim is request:
                return
        step.add(request, end)

    def _admit(self, request: Request, step: "_StepBudget") -> bool:
        """Give the first waiting request a slot, and pages for all its tokens.

        A page for each running row stays free: they grow next, and would preempt the newcomer.
        """
        needed = -(-request.num_tokens // self._page_size) + len(self.running)
        if request.num_in_flight or needed > self.pool.num_free:
            return False
        self._grow(request, request.num_tokens)
        self.waiting.pop()
        request.status = Status.RUNNING
        if request.queue_seconds is None:
            request.queue_seconds = monotonic() - request.arrival_time
        request.slot = self._free_slots.pop()
        self.running.append(request)
        step.add(request, step.most_tokens(request), admitted=True)
        return True

    def _grow(self, request: Request, num_tokens: int) -> bool:
        """Own the pages that `num_tokens` tokens take."""
        missing = -(-num_tokens // self._page_size) - len(request.pages)
        if missing <= 0:
            return True
        pages = self.pool.allocate(missing)
        if pages is None:
            return False
        request.pages += pages
        return True

    def _preemptible(self, step: "_StepBudget") -> list[Request]:
        """Running requests that are not part of the step being planned, the asking one included."""
        planned = {chunk.request.request_id for chunk in step.plan.chunks}
        return [r for r in self.running if r.request_id not in planned]

    def _preempt(self, victim: Request) -> None:
        self.running.remove(victim)
        self._give_back(victim)
        victim.rewind()
        self.waiting.push(victim)
        self.num_preemptions += 1

    def _give_back(self, request: Request) -> None:
        self.pool.release(request.pages)
        request.pages = []
        if request.slot is not None:
            self._free_slots.append(request.slot)


def _decode_first(request: Request) -> tuple[bool, int, int]:
    return request.num_tokens - request.num_computed > 1, *request.order


class _StepBudget:
    """What is left of the step being planned."""

    def __init__(self, max_tokens: int, max_rows: int) -> None:
        self.plan = Plan()
        self._tokens = max_tokens
        self._logit_rows = max_rows
        self._rows = max_rows

    @property
    def open(self) -> bool:
        return self._tokens > 0 and self._logit_rows > 0 and self._rows > 0

    def most_tokens(self, request: Request) -> int:
        """Tokens that the step has left for a request; one whose prompt is scored takes a row of
        logits for each of them."""
        count = min(request.num_tokens - request.num_computed, self._tokens)
        if _unscored(request):
            count = min(count, self._logit_rows)
        return count

    def add(self, request: Request, end: int, admitted: bool = False) -> None:
        """Plan the request's tokens up to `end`."""
        start = request.num_computed
        samples = end == request.num_tokens
        scored = _NONE
        if _unscored(request):
            first = max(start, request.num_prompt_logprobs)
            scored = range(first, max(first, min(end, request.num_prompt_tokens - 1)))
            request.num_prompt_logprobs += len(scored)
        if request.slot is None:
            raise RuntimeError("a request without a slot was planned")
        chunk = Chunk(request, start, end - start, samples, scored, request.slot, admitted)
        self._tokens -= chunk.count
        self._logit_rows -= chunk.num_logit_rows
        self._rows -= 1
        self.plan.chunks.append(chunk)
        self.plan.num_tokens += chunk.count
        self.plan.decode &= chunk.count == 1 and samples


def _unscored(request: Request) -> bool:
    """Whether prompt tokens are still to be scored; the last one has nothing after it."""
    wanted = request.params.prompt_logprobs is not None
    return wanted and request.num_prompt_logprobs < request.num_prompt_tokens - 1
