"""Decides how many tokens each request gets in the next step.

No phases: every request asks for `num_tokens - num_computed` tokens, running requests first, then
waiting ones, until the step's tokens, its rows of logits, the slots or the pages run out. Chunked
prefill, decode, prefix hits and recomputation after a preemption are all this one rule. The
scheduler owns requests, slots and pages, and knows no array.
"""

import bisect
from collections.abc import Iterable
from operator import attrgetter
from secrets import token_hex
from time import monotonic

from engine.adapters.slots import AdapterSlots
from engine.cache.block_pool import BlockPool
from engine.cache.host_tier import HostTier
from engine.cache.page_key import extend_keys, root
from engine.cache.prefix_cache import Known, Part, PrefixCache
from engine.cache.state_snapshots import StateSnapshots
from engine.encoders.pages import EncoderPages
from engine.request import Request, Status
from engine.scheduling.longest_first import LongestFirst
from engine.scheduling.plan import Chunk, Plan
from engine.scheduling.step_budget import StepBudget
from engine.scheduling.waiting_queue import WaitingQueue
from engine.scheduling.windows import Windows, turns_of
from engine.speculation.drafting import add_drafts, propose

_LEAST_PART = 4  # a page is copied for a quarter of its tokens; for fewer if but one is left then


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
        snapshots: StateSnapshots | None = None,
        adapters: AdapterSlots | None = None,
    ) -> None:
        self.pool = pool
        self._adapters = adapters
        self._snapshots = snapshots
        self.cache = PrefixCache(pool, tier) if prefix_caching else None
        self._encoders = EncoderPages(pool, self.cache, page_size, max_num_batched_tokens)
        self.prefix_queries = self.prefix_hits = 0  # tokens
        self.host_queries = self.host_hits = 0  # tokens that the device did not have
        self.waiting = WaitingQueue()
        if longest_prefix_first and self.cache is not None:
            self.waiting = LongestFirst(self.cache, page_size)
        self.running: list[Request] = []  # in their order
        self.num_preemptions = 0
        self._requests: dict[int, Request] = {}
        self._page_size = page_size
        self._max_rows = max_num_seqs
        self._max_tokens = max_num_batched_tokens
        self._free_slots = list(range(max_num_seqs - 1, -1, -1))

    @property
    def has_requests(self) -> bool:
        return bool(self._requests)

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

    def reset_prefix_cache(self, *, host: bool = True) -> None:
        """Find nothing again that was computed until now, but for what the host has, unless `host`.
        Requests keep the pages that they own, and what becomes of these is known under a name that
        nobody new asks for."""
        if self.cache is None:
            return
        self.cache.clear(host=host)
        if self._snapshots is not None:
            self._snapshots.clear()
        parted = token_hex(16)
        for request in self.running:
            request.namespace += parted
            request.num_pages_found = 0
            request.page_keys.clear()
            extend_keys(request.page_keys, request.token_ids, self._page_size, request.namespace)

    def retract(self) -> None:
        """All that run wait again: their pages are free, and hold what they held."""
        for request in self.running[:]:
            self._preempt(request)

    def schedule(self, windows: Windows | None = None, *, run_ahead: bool = False) -> Plan:
        """The next step's plan; requests are moved on as if it had been computed.

        `windows(rows)` are numbers of turns that a step of so many rows can have, falling.
        `run_ahead`: rows that wait for their grammar may be computed, and sampled later.
        """
        if self.cache is not None:
            self.cache.begin_step()
        if self._snapshots is not None:
            self._snapshots.begin_step()
        plan, drafts = Plan(), propose(self.running, self._max_rows - len(self.running))
        if windows is not None and not drafts and not self.waiting:
            plan.window = turns_of(self.running, windows, self.pool, self._page_size)
        prompts = self._decode(plan, run_ahead)
        step = StepBudget(plan, self._max_tokens, self._max_rows)
        self._encoders.begin_step()
        self.waiting.begin_step()
        for request in prompts:
            if request.status is Status.RUNNING and step.open:
                self._continue(request, step)
        self._admit_some(step)
        add_drafts(drafts, step, self._grow_for_draft)
        self.pool.release([page for page, _ in plan.forks])
        for chunk in plan.chunks:
            chunk.request.num_in_flight += chunk.samples
        return plan

    def undo(self, plan: Plan) -> None:
        """Take back the newest plan, which was not computed; its requests begin again."""
        for request, count in zip(plan.decoding, plan.counts, strict=True):
            request.num_in_flight -= count
            self._undo(request, request.num_computed - count)
        for chunk in plan.chunks:
            chunk.request.num_in_flight -= chunk.samples
            chunk.request.num_prompt_logprobs -= len(chunk.scored)
            if chunk.kept is not None and self._snapshots is not None:
                self._snapshots.discard(chunk.kept[1])
            first = chunk.start
            if chunk.admitted:  # what a page was to begin with was not copied either
                first -= first % self._page_size
            self._undo(chunk.request, first)

    def _decode(self, plan: Plan, run_ahead: bool) -> list[Request]:
        """Plan a token, or a window of them, for each running request that has one to compute;
        returns the others.

        There is room for all: a step has a token and a row of logits for every slot.
        """
        others, size, window, count = [], self._page_size, plan.window, 1
        ahead: list[Request] = []
        for request in self.running[:]:
            known = len(request.token_ids)
            end = known + request.num_in_flight
            if end >= request.max_tokens or request.status is not Status.RUNNING:
                continue
            watched = request.constraint is not None or request.thinking is not None
            if watched and request.blocked:
                if run_ahead and request.runs_ahead:
                    ahead.append(request)
                continue
            if end - request.num_computed > 1:
                others.append(request)
                continue
            if window > 1:
                count = min(window, request.most_ahead)
                end += count - 1
            if end > len(request.pages) * size and not self._make_room(request, end, plan):
                continue
            plan.decoding.append(request)
            plan.counts.append(count)
            request.num_computed = end
            request.num_in_flight += count
            if known // size > request.num_pages_kept:
                self._remember(request)
        plan.num_tokens = len(plan.decoding)
        if plan.decoding or others:  # a step for these alone may be in vain
            for request in ahead:
                self._run_ahead(request, plan)
        return others

    def _run_ahead(self, request: Request, plan: Plan) -> None:
        """Plan the newest token of a row whose next one waits for what its grammar allows.

        Where its grammar turns out to force what follows, only the logits are in vain.
        """
        start = request.num_computed
        if request.status is not Status.RUNNING or not self._make_room(request, start + 1, plan):
            return
        if request.slot is None:
            raise RuntimeError("a running request has no slot")
        plan.chunks.append(
            Chunk(request, start, 1, False, range(0), request.slot, admitted=False, late=True)
        )
        plan.num_tokens += 1
        request.num_computed = start + 1
        self._remember(request)

    def _continue(self, request: Request, step: StepBudget) -> None:
        """Give a running request a part of its prompt."""
        end = request.num_computed + step.most_tokens(request)
        if self._make_room(request, end, step.plan):
            self._plan(step, request, end)

    def _make_room(self, request: Request, num_tokens: int, plan: Plan) -> bool:
        """Own the pages of so many tokens, preempting others, or, which is False, itself."""
        while not self._grow(request, num_tokens):
            victim = max(self._preemptible(plan), key=lambda r: r.order)
            self._preempt(victim)
            if victim is request:
                return False
        return True

    def _admit_some(self, step: StepBudget) -> None:
        """Waiting requests in their order; who has no adapter passes those that wait for theirs."""
        if self._adapters is not None:
            self._adapters.begin_step()
        while step.open and self._free_slots and (first := self.waiting.peek()):
            if self._adapters is not None and self._adapters.holds_up(first.lora):
                if not self.waiting.set_aside(first):
                    return
            elif not self._admit(first, step):
                return

    def _admit(self, request: Request, step: StepBudget) -> bool:
        """Give a waiting request a slot, and pages for all its tokens: cached ones, and new ones.

        A page for each running row stays free: they grow next, and would preempt the newcomer.
        """
        if request.num_in_flight or request.blocked or not self._encoders.open:
            return False
        found, encoded = self._match(request), self._encoders.match(request)
        known, rows = (*found, *encoded), len(self.running)
        if rows and self.cache is not None and not self.cache.fetch_some(known, rows):
            return False
        here = [page for page in known if isinstance(page, int)]
        self.pool.share(here)
        missing = self._encoders.num_pages(request) - len(here)
        missing += -(-request.num_tokens // self._page_size)
        if missing + rows > self.pool.num_free:
            self.pool.release(here)
            return False
        self.pool.accessed(here)
        spare = self.pool.num_free - missing
        self._start_from(request, found, self._find_part(request, len(found), spare), step.plan)
        self._encoders.take(request, encoded)
        self._grow(request, request.num_tokens)
        self.waiting.discard(request)
        request.status = Status.RUNNING
        request.slot = self._free_slots.pop()
        if self._adapters is not None:
            request.adapter_slot = self._adapters.take(request.lora)
        bisect.insort(self.running, request, key=attrgetter("order"))
        self._plan(step, request, request.num_computed + step.most_tokens(request), admitted=True)
        return True

    def _match(self, request: Request) -> list[Known]:
        """Pages of the cache, and of the host, that hold the beginning of a waiting request."""
        if self.cache is None:
            return []
        extend_keys(request.page_keys, request.token_ids, self._page_size, request.namespace)
        found = self.cache.match(request.page_keys[: request.num_reusable // self._page_size])
        request.num_pages_shared = len(found)
        if self._snapshots is not None:
            found = found[: self._snapshots.longest(request.page_keys[: len(found)])]
        return found

    def _find_part(self, request: Request, num_found: int, spare: int) -> Part | None:
        """A page that begins as the request goes on behind so many, if that is worth a copy.

        It is owned from now on: by the request if it is idle, else until the step is planned. A
        model with states begins behind whole pages only.
        """
        if self.cache is None or self._snapshots is not None:
            return None
        start, before = num_found * self._page_size, root(request.namespace)
        if num_found:
            before = request.page_keys[num_found - 1].digest
        end = min(start + self._page_size, request.num_reusable)
        part = self.cache.find_part(before, request.token_ids[start:end])
        if part is None or not (part.idle or spare):
            return None
        rest = request.num_tokens - start - part.num_tokens
        if _LEAST_PART * part.num_tokens < self._page_size and rest > 1:
            return None
        self.pool.share([part.page])
        self.pool.accessed([part.page])
        return part

    def _start_from(
        self, request: Request, found: list[Known], part: Part | None, plan: Plan
    ) -> None:
        """A request begins behind what was found, and a part of a page behind that."""
        request.pages = self.cache.bring(found) if self.cache is not None else []
        request.num_pages_kept = request.num_pages_found = len(found)
        request.num_computed = len(found) * self._page_size
        if part is not None:
            if part.idle:
                request.pages.append(part.page)
            else:
                self._grow(request, request.num_computed + part.num_tokens)
                plan.forks.append((part.page, request.pages[-1]))
            request.num_computed += part.num_tokens
        if self._snapshots is not None:
            key = request.page_keys[len(found) - 1] if found else None
            request.state_source = self._snapshots.read(key) if key else None
        if request.queue_seconds is None:
            request.queue_seconds = monotonic() - request.arrival_time
            request.num_cached_tokens = request.num_computed
            self._count_hits(request, sum(not isinstance(page, int) for page in found))

    def _count_hits(self, request: Request, num_hosts: int) -> None:
        request.num_external_tokens = num_hosts * self._page_size
        here = request.num_computed - request.num_external_tokens
        self.prefix_queries += request.num_prompt_tokens
        self.prefix_hits += here
        self.host_queries += request.num_prompt_tokens - here
        self.host_hits += request.num_computed - here

    def _plan(
        self, step: StepBudget, request: Request, end: int, *, admitted: bool = False
    ) -> None:
        """Tokens up to `end` are computed in this step; pages that it fills can be found from now.

        A request that is admitted to the same step can use them: in each layer all keys and values
        are written before any is read.
        """
        borders = self._borders(request, end)
        if len(borders) > 1:  # a row leaves one state a step
            end = borders[0] * self._page_size
        chunk = step.add(request, end, admitted)
        if self._snapshots is not None:
            chunk.source = request.state_source if admitted else None
            slot = self._snapshots.keep(request.page_keys[borders[0] - 1]) if borders else None
            if slot is not None:
                chunk.kept = borders[0] * self._page_size - chunk.start, slot
        request.num_computed = end
        self._remember(request)
        if step.plan.chunks[-1].samples:
            self._remember_part(request)

    def _borders(self, request: Request, end: int) -> list[int]:
        """Pages behind which a state is to be kept, of those that the tokens up to `end` fill:
        where the prompt parted from others, and its last that another could begin with."""
        if self._snapshots is None:
            return []
        last = (request.num_prompt_tokens - 1) // self._page_size
        first = request.num_computed // self._page_size
        wanted = {request.num_pages_shared, last}
        return sorted(n for n in wanted if first < n <= min(last, end // self._page_size))

    def _remember(self, request: Request) -> None:
        """Tell the cache of pages that are full, by tokens that the host knows."""
        full = min(request.num_computed, len(request.token_ids)) // self._page_size
        if self.cache is None or full <= request.num_pages_kept:
            return
        extend_keys(request.page_keys, request.token_ids, self._page_size, request.namespace)
        keys, known = request.page_keys[:full], request.num_pages_kept
        self.cache.insert_chain(keys, request.pages, known, request.num_pages_found)
        request.num_pages_kept = full

    def _remember_part(self, request: Request) -> None:
        """Tell the cache of the tokens behind the full pages, in a page that is not; where there
        are states nobody could begin with those."""
        known = min(request.num_computed, len(request.token_ids))
        full = known // self._page_size
        if self.cache is None or self._snapshots is not None or known % self._page_size == 0:
            return
        before = request.page_keys[full - 1].digest if full else root(request.namespace)
        tokens = request.token_ids[full * self._page_size : known]
        self.cache.keep_part(before, tokens, request.pages[full])

    def _undo(self, request: Request, start: int) -> None:
        """Tokens from `start` on were not computed: pages that they were to fill hold nothing."""
        if request.status is not Status.RUNNING:
            return
        if self.cache is not None:
            for page in request.pages[start // self._page_size :]:
                self.cache.discard(page)
        self._encoders.undo(request)
        request.num_computed = start
        request.num_pages_kept = min(request.num_pages_kept, start // self._page_size)
        self._preempt(request)

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

    def _grow_for_draft(self, request: Request, num_tokens: int) -> int:
        """Own pages of so many tokens, if each row that runs finds one after that; returns of how
        many tokens they are."""
        size = self._page_size
        if -(-num_tokens // size) - len(request.pages) + len(self.running) <= self.pool.num_free:
            self._grow(request, num_tokens)
        return min(num_tokens, len(request.pages) * size)

    def _preemptible(self, plan: Plan) -> list[Request]:
        """Running requests that are not part of the step being planned, the asking one included."""
        planned = {r.request_id for r in plan.decoding}
        planned.update(chunk.request.request_id for chunk in plan.chunks)
        return [r for r in self.running if r.request_id not in planned]

    def _preempt(self, victim: Request) -> None:
        self.running.remove(victim)
        self._give_back(victim)
        victim.rewind()
        victim.num_preemptions += 1
        self.waiting.push(victim)
        self.num_preemptions += 1

    def _give_back(self, request: Request) -> None:
        self._remember(request)
        self._remember_part(request)
        if self.cache is None:
            self.pool.release(request.pages)
        else:
            keys = request.page_keys[: request.num_pages_kept]
            self.cache.release(keys, request.pages, request.num_pages_found)
        request.pages = []
        self._encoders.give_back(request)
        if self._adapters is not None:
            self._adapters.release(request.lora)
        if request.slot is not None:
            self._free_slots.append(request.slot)
