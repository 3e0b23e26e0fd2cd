"""The scheduler against a device that forgets nothing and checks everything.

`PagedMemory` stands for the KV cache: a step writes its tokens into (page, slot) places, reads the
whole sequence back through the request's pages, and "samples" a token that depends on all of it.
If a page is lost, reused too early, shared by different texts or a token never computed, the text
differs from the one that the request alone would give.
"""

from random import Random
from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.cache.block_pool import BlockPool
from engine.cache.page_key import root
from engine.messages import AddRequest
from engine.request import Request, Status, make_request
from engine.sampling.late_rows import LateRow, LateRows
from engine.sampling.params import SamplingParams
from engine.scheduling.plan import Chunk, Plan
from engine.scheduling.scheduler import Scheduler

MAX_LEN = 48
VOCAB = 50


def next_token(tokens):
    return (31 * sum((i + 1) * t for i, t in enumerate(tokens)) + len(tokens)) % VOCAB


def alone(prompt, max_tokens, stop):
    """The text a request gives by itself."""
    tokens = list(prompt)
    while len(tokens) < min(MAX_LEN, len(prompt) + max_tokens):
        tokens.append(next_token(tokens))
        if tokens[-1] in stop:
            break
    return tokens


def pieces(plan: Plan) -> list[Chunk]:
    """All of a plan as chunks, right after it was made; turns are chunks one after another."""
    turns = [
        Chunk(r, at, 1, samples=True, scored=range(0), slot=r.slot, admitted=False)
        for r, count in zip(plan.decoding, plan.counts, strict=True)
        for at in range(r.num_computed - count, r.num_computed)
    ]
    return turns + plan.chunks


class PagedMemory:
    """Runs plans: (page, slot) -> token, and the last token of each row slot.

    The epoch changes with each reset of the cache; tokens and requests have the one they began in.
    """

    def __init__(self, page_size):
        self.page_size = page_size
        self.cells = {}
        self.last = {}
        self.epoch = 0
        self.epochs = {}
        self.born = {}

    def run(self, plan: Plan):
        """Sampled token and scored positions of each chunk; `late` are the tokens that late rows
        may be given, by their row of the logits."""
        results, late, row = [], {}, 0
        for source, target in plan.forks:
            for place in range(self.page_size):
                self.cells[target, place] = self.cells.get((source, place))
                self.epochs[target, place] = self.epochs.get((source, place))
        for chunk in pieces(plan):
            request = chunk.request
            for position in range(chunk.start, chunk.start + chunk.count):
                known = request.token_ids
                token = known[position] if position < len(known) else self.last[chunk.slot]
                page = request.pages[position // self.page_size]
                self.cells[page, position % self.page_size] = token
                self.epochs[page, position % self.page_size] = self.epoch
            end = chunk.start + chunk.count
            places = [(request.pages[p // self.page_size], p % self.page_size) for p in range(end)]
            seen = [self.cells[place] for place in places]
            oldest = min(self.epochs[place] for place in places)
            assert oldest >= self.born.get(request.request_id, 0), "what was reset was found"
            known = request.token_ids[:end]
            assert seen[: len(known)] == known, "the cache holds another text"
            token = None
            if chunk.samples:
                token = self.last[chunk.slot] = next_token(seen)
            row += chunk.num_logit_rows
            if chunk.late:
                late[row - 1] = next_token(seen)
            results.append((chunk, token))
        self.logits = late
        return results


ANY = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=MAX_LEN - 1)
COMMON = [7, 1, 4, 4, 2, 8, 9, 9, 3, 5, 5, 6] * 3  # where many prompts begin alike
PROMPTS = ANY | st.builds(
    lambda count, rest: COMMON[:count] + rest,
    st.integers(1, len(COMMON)),
    st.lists(st.integers(0, VOCAB - 1), max_size=MAX_LEN - 1 - len(COMMON)),
)


class SchedulerMachine(RuleBasedStateMachine):
    """Add, step and abort in any order; one step is always in flight, as in the engine, unless it
    is a window that was read at once.

    Rows with a grammar see each token, and may be forced to some, before they choose the next.
    """

    @initialize(
        pages=st.integers(13, 40),
        rows=st.integers(1, 5),
        budget=st.integers(5, 40),
        longest_first=st.booleans(),
        windows=st.sampled_from([[], [2], [4, 2]]),
    )
    def start(self, pages, rows, budget, longest_first, windows, **others):
        self.windows = windows
        self.page_size = 4
        self.rows, self.budget = rows, max(rows, budget)
        self.pool = BlockPool(pages)
        self.scheduler = Scheduler(
            self.pool,
            page_size=4,
            max_num_seqs=rows,
            max_num_batched_tokens=self.budget,
            longest_prefix_first=longest_first,
            **others,
        )
        self.memory = PagedMemory(4)
        self.flying = []
        self.late = LateRows()
        self.sampled_late = []
        self.moving: list[Request] = []  # whose grammar is to see a token
        self.requests: dict[int, Request] = {}
        self.scored: dict[int, list[int]] = {}
        self.expected = {}

    @rule(
        prompt=PROMPTS,
        salt=st.sampled_from(["", "", "a"]),
        max_tokens=st.integers(1, 30),
        stop=st.sets(st.integers(0, VOCAB - 1), max_size=3),
        score=st.booleans(),
        priority=st.integers(-1, 1),
        constrained=st.booleans(),
    )
    def add(self, prompt, salt, max_tokens, stop, score, priority, constrained):
        number = len(self.requests)
        params = SamplingParams(
            max_tokens=max_tokens, stop_token_ids=sorted(stop), prompt_logprobs=0 if score else None
        )
        message = AddRequest(
            request_id=number,
            prompt_token_ids=prompt,
            params=params,
            priority=priority,
            cache_salt=salt,
        )
        request = make_request(
            message, arrival=number, seed=0, max_model_len=MAX_LEN, eos=frozenset()
        )
        if constrained:
            request.constraint = SimpleNamespace(ready=True)
        self.requests[number] = request
        self.memory.born[number] = self.memory.epoch
        self.scored[number] = []
        self.expected[number] = alone(prompt, max_tokens, stop)
        self.scheduler.add(request)

    @rule(quick=st.booleans(), forced=st.integers(0, 3), alone=st.booleans())
    def step(self, quick=True, forced=0, alone=False):
        if quick:
            self.settle(forced)
        plan = self.plan()
        self.check(plan)
        before, self.flying = self.flying, self.memory.run(plan)
        self.late.add([LateRow(request, self.memory.logits, row) for request, row in plan.late])
        sampled, self.sampled_late = self.sampled_late, []
        self.collect(before + sampled)
        if alone and plan.window > 1:
            self.collect(self.flying)
            self.flying = []

    @rule()
    def interrupt(self):
        """The user stops a step that was planned and not launched."""
        self.scheduler.undo(self.plan())

    @rule()
    def reset(self):
        """Who comes now finds nothing; who runs goes on."""
        self.scheduler.reset_prefix_cache()
        self.memory.epoch += 1

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def abort(self, data):
        number = data.draw(st.sampled_from(sorted(self.requests)))
        self.scheduler.abort([number, 10**6])
        assert self.requests[number].status is Status.FINISHED
        self.expected[number] = None

    def plan(self):
        """Sample the rows that can be by now; then plan a step."""
        for rows in self.late.due():
            for each in rows:
                request, token = each.request, each.taken[each.row]
                self.memory.last[request.slot] = token
                place = request.num_computed - 1
                chunk = Chunk(request, place, 1, True, range(0), request.slot, admitted=False)
                self.sampled_late.append((chunk, token))
            self.late.sampled(rows)
        return self.scheduler.schedule(lambda rows: self.windows, run_ahead=not self.late.full)

    def settle(self, forced):
        """Grammars have seen the tokens that were read; some force what comes next."""
        for request in self.moving:
            request.constraint.ready = True
            for _ in range(forced):
                if request.status is not Status.FINISHED:
                    self.append(request, next_token(request.token_ids))
        self.moving = []

    def append(self, request, token):
        if request.append(token):
            self.scheduler.finish(request)

    def collect(self, results):
        for chunk, token in results:
            request = chunk.request
            request.num_in_flight -= chunk.samples
            if request.status is Status.FINISHED:
                continue
            self.scored[request.request_id] += list(chunk.scored)
            if chunk.samples:
                self.append(request, token)
                if request.constraint is not None:
                    request.constraint.ready = False
                    self.moving.append(request)

    def check(self, plan):
        chunks, num_rows = pieces(plan), len(plan.decoding) + len(plan.chunks)
        assert plan.num_tokens <= self.budget
        if plan.window == 1:
            assert sum(chunk.num_logit_rows for chunk in chunks) <= self.rows
        else:
            assert plan.window in self.windows and not plan.chunks and not self.scheduler.waiting
            assert max(plan.counts) == plan.window
        assert num_rows <= self.rows
        assert len({chunk.slot for chunk in chunks}) == num_rows
        assert all(chunk.count > 0 for chunk in chunks)

    @invariant()
    def pages_are_counted_and_shared_by_equal_beginnings_only(self):
        if not hasattr(self, "pool"):
            return
        owners = {}
        for request in self.requests.values():
            for index, page in enumerate(request.pages):
                owners.setdefault(page, []).append((request, index))
        assert len(owners) + self.pool.num_free == self.pool.capacity
        for page, held in owners.items():
            assert self.pool.owners(page) == len(held)
            beginnings = {(r.namespace, *r.token_ids[: (i + 1) * self.page_size]) for r, i in held}
            assert len(beginnings) == 1
        slots = [r.slot for r in self.scheduler.running]
        assert len(slots) == len(set(slots))

    @invariant()
    def what_is_kept_and_nobody_owns_can_be_found(self):
        """A page whose beginning is gone would take memory until it is given away."""
        if not hasattr(self, "pool") or (cache := self.scheduler.cache) is None:
            return
        first = {root(request.namespace) for request in self.requests.values()}
        for page, key in cache._keys.items():
            assert self.pool.owners(page) or key.before in cache._pages or key.before in first

    def teardown(self):
        if not hasattr(self, "pool"):
            return
        for _ in range(3000):
            if not self.scheduler.has_requests and not self.flying:
                break
            self.step()
        assert not self.scheduler.has_requests, "some request never ends"
        for number, request in self.requests.items():
            if self.expected[number] is not None:
                assert request.token_ids == self.expected[number]
                wanted = request.num_prompt_tokens - 1 if request.params.prompt_logprobs == 0 else 0
                assert self.scored[number] == list(range(wanted))
        assert self.pool.num_free == self.pool.capacity


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def make(number, prompt, *, priority=0, max_tokens=4, cache_salt="", **options):
    message = AddRequest(
        request_id=number, prompt_token_ids=prompt, priority=priority, cache_salt=cache_salt,
        params=SamplingParams(max_tokens=max_tokens, **options),
    )  # fmt: skip
    return make_request(message, arrival=number, seed=0, max_model_len=MAX_LEN, eos=frozenset())


def scheduler(pages=40, rows=4, budget=16):
    return Scheduler(
        BlockPool(pages), page_size=4, max_num_seqs=rows, max_num_batched_tokens=budget
    )


def test_decode_rows_come_first_and_a_long_prompt_is_chunked():
    s = scheduler()
    s.add(make(0, [1]))
    s.schedule()
    s.add(make(1, [2] * 40))
    plan = s.schedule()
    assert [(c.request.request_id, c.start, c.count, c.samples) for c in pieces(plan)] == [
        (0, 1, 1, True),
        (1, 0, 15, False),
    ]
    assert not plan.decode
    assert [c.start for c in pieces(s.schedule())] == [2, 15]


def test_rows_that_decode_alone_get_a_window_and_end_within_it():
    s = scheduler(budget=64)
    for number, length in enumerate([3, 9]):
        s.add(make(number, [1, 2, 3], max_tokens=length))
    windows = {1: [2], 2: [4, 2]}.get
    assert compute(s, s.schedule(windows)).window == 1  # prompts
    plan = compute(s, s.schedule(windows))
    assert (plan.window, plan.counts) == (4, [2, 4])
    s.add(make(2, [5]))
    assert s.schedule(windows).window == 1


def test_a_window_preempts_nobody():
    s = scheduler(pages=5, budget=64)  # 4 pages of 4
    for number in range(2):
        s.add(make(number, [number + 1] * 4, max_tokens=9))
    s.schedule()
    plan = s.schedule(lambda rows: [4, 2])
    assert plan.window == 4 and s.pool.num_free == 0
    assert s.schedule(lambda rows: [4, 2]).window == 1 and s.num_preemptions == 1


def test_lower_priority_number_goes_first():
    s = scheduler(rows=1)
    for number, priority in enumerate([0, 1, -1]):
        s.add(make(number, [1, 2], priority=priority))
    assert pieces(s.schedule())[0].request.request_id == 2


def test_the_latest_is_preempted_and_comes_back_first():
    s = scheduler(pages=9, rows=3)  # 8 pages of 4
    first, second = make(0, [1] * 15, max_tokens=20), make(1, [2] * 11, max_tokens=20)
    s.add(first)
    s.add(second)
    late = make(2, [3])
    while s.num_preemptions == 0:
        for chunk in pieces(s.schedule()):
            chunk.request.num_in_flight -= chunk.samples
            if chunk.samples:
                chunk.request.append(9)
    s.add(late)
    assert second.status is Status.WAITING and not second.pages
    assert first.status is Status.RUNNING
    assert s.waiting.peek() is second


def test_scored_prompts_take_rows_of_logits():
    s = scheduler(rows=3, budget=16)
    s.add(make(0, [1] * 8, prompt_logprobs=1))
    scored = []
    for _ in range(3):
        (chunk,) = pieces(s.schedule())
        assert chunk.num_logit_rows <= 3
        scored += list(chunk.scored)
    assert scored == list(range(7)) and chunk.samples


def compute(s, plan):
    """Run a plan on a device that answers 9."""
    for chunk in pieces(plan):
        chunk.request.num_in_flight -= chunk.samples
        if chunk.samples:
            reason = chunk.request.append(9)
            if reason:
                s.finish(chunk.request)
    return plan


def run_alone(s, request):
    s.add(request)
    while s.has_requests:
        compute(s, s.schedule())
    return request


def test_a_known_beginning_is_not_computed_again():
    s = scheduler(budget=64)
    run_alone(s, make(0, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]))
    again = make(1, [1, 2, 3, 4, 5, 6, 7, 8, 99])
    s.add(again)
    (chunk,) = pieces(s.schedule())
    assert (chunk.start, chunk.count, again.num_cached_tokens) == (8, 1, 8)
    assert (s.prefix_queries, s.prefix_hits) == (10 + 9, 8)


def test_the_last_token_is_always_computed():
    s = scheduler(budget=64)
    run_alone(s, make(0, [1, 2, 3, 4, 5, 6, 7, 8]))
    s.add(make(1, [1, 2, 3, 4, 5, 6, 7, 8]))
    (chunk,) = pieces(s.schedule())
    assert (chunk.start, chunk.count) == (7, 1)


def test_what_was_generated_is_found_too():
    s = scheduler(budget=64)
    first = run_alone(s, make(0, [1, 2, 3, 4, 5], max_tokens=8))
    follow_up = make(1, [*first.token_ids, 11, 12])
    s.add(follow_up)
    s.schedule()
    assert follow_up.num_cached_tokens == 12


def test_requests_admitted_together_share_what_the_first_computes():
    s = scheduler(budget=64)
    requests = [make(number, [3] * 20) for number in range(4)]
    for request in requests:
        s.add(request)
    plan = s.schedule()
    assert [(c.start, c.count) for c in pieces(plan)] == [(0, 20), (16, 4), (16, 4), (16, 4)]
    assert len({page for request in requests for page in request.pages}) == 4 + 4


def test_namespaces_share_nothing():
    s = scheduler(budget=64)
    run_alone(s, make(0, [1] * 12, cache_salt="a"))
    other, same = make(1, [1] * 12, cache_salt="b"), make(2, [1] * 12, cache_salt="a")
    s.add(other)
    s.add(same)
    s.schedule()
    assert (other.num_cached_tokens, same.num_cached_tokens) == (0, 11)


def test_scored_prompts_are_computed_whole():
    s = scheduler(budget=64)
    run_alone(s, make(0, [1] * 12))
    scored = make(1, [1] * 4, prompt_logprobs=0)
    s.add(scored)
    assert pieces(s.schedule())[0].start == 0


def test_tokens_that_sampling_counts_enter_the_model():
    s = scheduler(budget=64)
    first = run_alone(s, make(0, [1, 2, 3, 4, 5], max_tokens=8))
    counted = make(1, first.token_ids[:5], max_tokens=20, repetition_penalty=1.1)
    counted.token_ids += first.token_ids[5:]  # as after a preemption
    s.add(counted)
    assert pieces(s.schedule())[0].start == 5


def test_pages_of_the_least_recently_used_text_go_first():
    s = scheduler(pages=9, rows=1, budget=64)  # 8 pages
    run_alone(s, make(0, [1] * 8, max_tokens=1))
    run_alone(s, make(1, [2] * 8, max_tokens=1))
    run_alone(s, make(2, [1] * 9, max_tokens=1))  # used again
    run_alone(s, make(3, [3] * 20, max_tokens=1))
    kept, gone = make(4, [1] * 9, max_tokens=1), make(5, [2] * 9, max_tokens=1)
    assert run_alone(s, kept).num_cached_tokens == 8
    assert run_alone(s, gone).num_cached_tokens < 8


def test_longest_known_prefix_first():
    s = Scheduler(
        BlockPool(40), page_size=4, max_num_seqs=1, max_num_batched_tokens=64,
        longest_prefix_first=True,
    )  # fmt: skip
    run_alone(s, make(0, [1] * 12))
    for number, prompt in enumerate([[2] * 9, [1] * 5, [1] * 13], start=1):
        s.add(make(number, prompt))
    assert pieces(s.schedule())[0].request.request_id == 3


def test_without_the_cache_everything_is_computed():
    s = Scheduler(
        BlockPool(40), page_size=4, max_num_seqs=1, max_num_batched_tokens=64, prefix_caching=False
    )
    run_alone(s, make(0, [1] * 12))
    s.add(make(1, [1] * 12))
    assert pieces(s.schedule())[0].start == 0


def test_pages_are_found_only_as_far_as_they_are_computed():
    s = scheduler(budget=18, rows=2)
    s.add(make(0, [1] * 40))
    compute(s, s.schedule())
    s.abort([0])
    s.add(make(1, [1] * 40))
    assert [c.start for c in pieces(s.schedule())] == [18]


@pytest.mark.parametrize("tail", [[8], [6, 8]])
def test_a_page_that_goes_on_differently_is_copied(tail):
    s = scheduler(budget=64)
    first = make(0, [1, 2, 3, 4, 5, 6], max_tokens=9)
    s.add(first)
    compute(s, s.schedule())
    second = make(1, [1, 2, 3, 4, 5, *tail])
    s.add(second)
    plan = s.schedule()
    assert plan.forks == [(first.pages[1], second.pages[1])]
    assert second.pages[0] == first.pages[0] and s.pool.owners(first.pages[1]) == 1
    (chunk,) = plan.chunks
    assert (chunk.count, second.num_cached_tokens) == (1, 4 + len(tail))


def test_a_copy_that_was_not_made_is_not_found():
    s = scheduler(budget=64)
    run_alone(s, make(0, [1, 2, 3, 4, 5, 6, 7, 9], max_tokens=1))
    second = make(1, [1, 2, 3, 4, 5, 6, 7, 8])
    s.add(second)
    plan = s.schedule()
    [(source, _)] = plan.forks
    s.cache.discard(source)
    s.undo(plan)
    plan = s.schedule()
    assert plan.forks == [] and plan.chunks[0].start == 4


def test_what_a_finished_request_left_is_continued_in_place():
    s = scheduler(budget=64)
    first = run_alone(s, make(0, [1, 2, 3, 4, 5], max_tokens=2))
    s.add(make(1, first.token_ids))
    s.add(make(2, first.token_ids))
    plan = s.schedule()
    one, two = (chunk.request.pages for chunk in plan.chunks)
    assert [c.start for c in plan.chunks] == [6, 6] and plan.forks == [(one[1], two[1])]


def test_a_few_equal_tokens_are_not_worth_a_copy():
    s = Scheduler(BlockPool(40), page_size=16, max_num_seqs=4, max_num_batched_tokens=64)
    run_alone(s, make(0, [1, 2, 3, 4, 5, 6, 7]))
    for number, prompt in enumerate([[1, 2, 3, 9, 9], [1, 2, 3, 4, 9], [1, 2, 3, 9]], 1):
        s.add(make(number, prompt))
    plan = s.schedule()
    assert [c.start for c in plan.chunks] == [0, 4, 3] and len(plan.forks) == 2


def test_a_full_pool_copies_nothing():
    s = scheduler(pages=4, rows=1, budget=64)  # 3 pages
    run_alone(s, make(0, [1] * 4 + [2] * 4, max_tokens=1))
    s.add(make(1, [1] * 4 + [2] * 3 + [3] * 5, max_tokens=1))
    plan = s.schedule()
    assert plan.forks == [] and plan.chunks[0].start == 4


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.tuples(st.integers(1, 36), st.integers(0, 2)), min_size=1, max_size=8),
    budget=st.integers(8, 60),
    steps_between=st.integers(0, 2),
)
def test_no_page_is_computed_twice(cuts, budget, steps_between):
    """Whoever comes while another computes the same beginning waits for it, or shares its step."""
    s = scheduler(pages=200, rows=8, budget=budget)
    computed = []

    def step():
        plan = s.schedule()
        for chunk in pieces(plan):
            known = tuple(chunk.request.token_ids)
            last = (len(known) - 1) // 4  # whose last token is always computed
            ends = range(chunk.start // 4, min((chunk.start + chunk.count) // 4, last))
            computed.extend(known[: 4 * (page + 1)] for page in ends)
        compute(s, plan)

    for number, (cut, tail) in enumerate(cuts):
        s.add(make(number, [*COMMON[:cut], 40 + tail], max_tokens=2))
        for _ in range(steps_between):
            step()
    while s.has_requests:
        step()
    assert len(computed) == len(set(computed))


@pytest.mark.parametrize("windows", [[], [4, 2]])
def test_hardly_a_place_of_a_page_is_empty(windows):
    """Prompts of 100 to 400 tokens, answers of 100 to 300, pages of 16: of all places in pages that
    are owned, in all steps, tokens take 96 in 100."""
    s = Scheduler(BlockPool(500), page_size=16, max_num_seqs=8, max_num_batched_tokens=256)
    random, places, tokens = Random(0), 0, 0
    for number in range(40):
        prompt = [random.randrange(VOCAB) for _ in range(random.randrange(100, 400))]
        params = SamplingParams(max_tokens=random.randrange(100, 300))
        message = AddRequest(request_id=number, prompt_token_ids=prompt, params=params)
        s.add(make_request(message, arrival=number, seed=0, max_model_len=800, eos=frozenset()))
    while s.has_requests:
        compute(s, s.schedule(lambda rows: windows))
        places += 16 * (s.pool.capacity - s.pool.num_free)
        tokens += sum(request.num_tokens for request in s.running)
    assert 0.96 < tokens / places < 1
