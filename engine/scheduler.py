"""Decides how many tokens each request gets in the next step.

No phases: every request asks for `num_tokens - num_computed` tokens, running requests first, then
waiting ones, until the step's tokens, its rows of logits, the slots or the pages run out. Chunked
prefill, decode, prefix hits and recomputation after a preemption are all this one rule. The
scheduler owns requests, slots and pages, and knows no array.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from time import monotonic

from engine.block_pool import BlockPool
from engine.host_tier import HostTier
from engine.page_key import extend_keys
from engine.prefix_cache import Known, PrefixCache
from engine.request import Request, Status
from engine.waiting_queue import WaitingQueue

_NONE = range(0)
_LONGEST_RIDE = 8  # forced tokens; more are computed as one chunk
_COMPARED = 128  # waiting requests of which the one with the longest known prefix goes first


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
    decode: bool = True  # each row has one token: the shape of a decode program


class Scheduler:
    """Requests between admission and their end."""

    def __init__(
        self,
        pool: BlockPool,
        *,
        page_size: int,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        prefix_caching: bool = True,
        longest_prefix_first: bool = False,
        tier: HostTier | None = None,
    ) -> None:
        self.pool = pool
        self.cache = PrefixCache(pool, tier) if prefix_caching else None
        self.prefix_queries = self.prefix_hits = 0  # tokens
        self.host_queries = self.host_hits = 0  # tokens that the device did not have
        self._longest_first = longest_prefix_first
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
            if request.blocked:
                continue
            if request.status is Status.RUNNING and request.wants_more and step.open:
                self._continue(request, step)
        while step.open and self._free_slots and (first := self._next_waiting()):
            if not self._admit(first, step):
                break
        for chunk in step.plan.chunks:
            chunk.request.num_in_flight += chunk.samples
        return step.plan

    def undo(self, plan: Plan) -> None:
        """Take back the newest plan, which was not computed; its requests begin again."""
        for chunk in plan.chunks:
            chunk.request.num_in_flight -= chunk.samples
            chunk.request.num_prompt_logprobs -= len(chunk.scored)
            if chunk.request.status is Status.RUNNING:
                self._forget(chunk)
                self._preempt(chunk.request)

    def _continue(self, request: Request, step: "_StepBudget") -> None:
        """Give a running request its tokens, preempting others, or itself, for pages."""
        end = request.num_computed + step.most_tokens(request)
        while not self._grow(request, end):
            victim = max(self._preemptible(step), key=lambda r: r.order)
            self._preempt(victim)
            if victim is request:
                return
        self._plan(step, request, end)

    def _next_waiting(self) -> Request | None:
        """Who is to get the next slot."""
        first = self.waiting.peek()
        if first is None or not self._longest_first:
            return first
        return max(self.waiting.first(_COMPARED), key=lambda r: (-r.priority, len(self._match(r))))

    def _admit(self, request: Request, step: "_StepBudget") -> bool:
        """Give a waiting request a slot, and pages for all its tokens: cached ones, and new ones.

        A page for each running row stays free: they grow next, and would preempt the newcomer.
        """
        if request.num_in_flight or request.blocked:
            return False
        found = self._match(request)
        here = [page for page in found if isinstance(page, int)]
        self.pool.share(here)
        missing = -(-request.num_tokens // self._page_size) - len(here)
        if missing + len(self.running) > self.pool.num_free:
            self.pool.release(here)
            return False
        self._start_from(request, found)
        self._grow(request, request.num_tokens)
        self.waiting.discard(request)
        request.status = Status.RUNNING
        request.slot = self._free_slots.pop()
        self.running.append(request)
        self._plan(step, request, request.num_computed + step.most_tokens(request), admitted=True)
        return True

    def _match(self, request: Request) -> list[Known]:
        """Pages of the cache, and of the host, that hold the beginning of a waiting request."""
        if self.cache is None:
            return []
        extend_keys(request.page_keys, request.token_ids, self._page_size, request.namespace)
        return self.cache.match(request.page_keys[: request.num_reusable // self._page_size])

    def _start_from(self, request: Request, found: list[Known]) -> None:
        """A request begins behind what was found."""
        request.pages = self.cache.bring(found) if self.cache else []
        request.num_pages_kept = len(found)
        request.num_computed = len(found) * self._page_size
        if request.queue_seconds is None:
            request.queue_seconds = monotonic() - request.arrival_time
            request.num_cached_tokens = request.num_computed
            self._count_hits(request, sum(isinstance(page, int) for page in found))

    def _count_hits(self, request: Request, num_here: int) -> None:
        here = num_here * self._page_size
        self.prefix_queries += request.num_prompt_tokens
        self.prefix_hits += here
        self.host_queries += request.num_prompt_tokens - here
        self.host_hits += request.num_computed - here

    def _plan(
        self, step: "_StepBudget", request: Request, end: int, *, admitted: bool = False
    ) -> None:
        """Tokens up to `end` are computed in this step; pages that it fills can be found from now.

        A request that is admitted to the same step can use them: in each layer all keys and values
        are written before any is read.
        """
        step.add(request, end, admitted)
        request.num_computed = end
        self._remember(request)

    def _remember(self, request: Request) -> None:
        """Tell the cache of pages that are full, by tokens that the host knows."""
        full = min(request.num_computed, len(request.token_ids)) // self._page_size
        if self.cache is None or full <= request.num_pages_kept:
            return
        extend_keys(request.page_keys, request.token_ids, self._page_size, request.namespace)
        for index in range(request.num_pages_kept, full):
            self.cache.insert(request.page_keys[index], request.pages[index])
        request.num_pages_kept = full

    def _forget(self, chunk: Chunk) -> None:
        """Pages that a step was to fill, and did not, hold nothing."""
        if self.cache is None:
            return
        request = chunk.request
        for page in request.pages[chunk.start // self._page_size : request.num_pages_kept]:
            self.cache.discard(page)
        request.num_computed = chunk.start

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
        self._remember(request)
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
        self._has_free_rows = False

    @property
    def open(self) -> bool:
        return self._tokens > 0 and self._logit_rows > 0 and self._rows > 0

    def most_tokens(self, request: Request) -> int:
        """Tokens that the step has left for a request; one whose prompt is scored takes a row of
        logits for each of them."""
        count = min(request.num_tokens - request.num_computed, self._tokens)
        if _unscored(request):
            count = min(count, self._logit_rows)
        rides = _is_forced(request) and self.plan.decode and self._has_free_rows
        return 1 if rides and count <= _LONGEST_RIDE else count

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
        self.plan.decode &= chunk.count == 1
        self._has_free_rows |= request.constraint is None


def _is_forced(request: Request) -> bool:
    """Whether what it has to compute are tokens that its grammar forced: a few of them ride along
    with other requests' decode rows, a token a step, since a chunk would make the step slower."""
    return request.constraint is not None and request.num_computed >= request.num_prompt_tokens


def _unscored(request: Request) -> bool:
    """Whether prompt tokens are still to be scored; the last one has nothing after it."""
    wanted = request.params.prompt_logprobs is not None
    return wanted and request.num_prompt_logprobs < request.num_prompt_tokens - 1
