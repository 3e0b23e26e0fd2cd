"""The scheduler with a host tier, against a device that makes the copies it is asked for.

Pages go to the host and come back, are forked and gone on with in place, while requests are
preempted, aborted and interrupted.
"""

from itertools import count

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import initialize

from engine.cache.block_pool import BlockPool
from engine.cache.host_tier import HostTier
from engine.request import Status
from engine.scheduling.plan import Plan
from engine.scheduling.scheduler import Scheduler
from tests.engine.scheduling.test_scheduler import PagedMemory, SchedulerMachine, compute, make


class TieredMemory(PagedMemory):
    """Pages of the device, and contents in the host."""

    def __init__(self, page_size, tier):
        super().__init__(page_size)
        self.tier = tier

    def run(self, plan: Plan):
        for host, page, to_host in self.tier.copies:
            places = [(page, place) for place in range(self.page_size)]
            if not to_host:
                assert host.content is not None
                for place, (token, epoch) in zip(places, host.content, strict=True):
                    self.cells[place], self.epochs[place] = token, epoch
            elif host.wanted:
                host.content = [(self.cells.get(at), self.epochs.get(at)) for at in places]
        self.tier.copies.clear()
        return super().run(plan)


class TierMachine(SchedulerMachine):
    """As the one without a tier; few pages on either side."""

    @initialize(
        pages=st.integers(13, 24),
        rows=st.integers(1, 5),
        budget=st.integers(5, 40),
        longest_first=st.booleans(),
        windows=st.sampled_from([[], [4, 2]]),
        capacity=st.integers(1, 20),
        room=st.sampled_from([0, 1, 3, 20]),
    )
    def start(self, pages, rows, budget, longest_first, windows, capacity, room):
        tier = HostTier(capacity)
        tier.room = lambda: max(0, room - sum(not copy.to_host for copy in tier.copies))
        super().start(pages, rows, budget, longest_first, windows, tier=tier)
        self.memory = TieredMemory(4, tier)


TestTier = TierMachine.TestCase
TestTier.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def fill(s, tokens):
    s.add(make(next(NUMBERS), tokens, max_tokens=1))
    while s.has_requests:
        compute(s, s.schedule())
        for host, _, to_host in s.cache._tier.copies:
            host.content = host.content or to_host
        s.cache._tier.copies.clear()


NUMBERS = count(1000)


def test_a_request_whose_beginning_cannot_come_now_comes_a_little_later():
    """Nobody waits for copies: a running row goes on, and as many pages come as can, each step."""
    tier = HostTier(20)
    s = Scheduler(
        BlockPool(15), page_size=4, max_num_seqs=2, max_num_batched_tokens=64, tier=tier
    )  # fmt: skip
    fill(s, [1] * 25)
    fill(s, [2] * 49)  # takes the pages of the first
    s.add(make(0, [3], max_tokens=20))
    compute(s, s.schedule())
    late = make(1, [1] * 25)
    s.add(late)
    tier.room = lambda: 2
    for fetched in (2, 2):
        tier.copies.clear()
        plan = compute(s, s.schedule())
        assert late.status is Status.WAITING and plan.num_tokens == 1
        assert sum(not copy.to_host for copy in tier.copies) == fetched
    tier.copies.clear()
    s.schedule()
    assert late.status is Status.RUNNING and late.num_cached_tokens == 24
    assert sum(not copy.to_host for copy in tier.copies) == 2


def test_a_page_comes_back_to_a_device_that_keeps_no_full_page():
    tier = HostTier(20)
    s = Scheduler(BlockPool(4), page_size=4, max_num_seqs=2, max_num_batched_tokens=64, tier=tier)
    for tokens in ([1] * 5, [2], [3], [4]):  # texts of less than a page take the pages of the first
        fill(s, tokens)
    again = make(1, [1] * 5)
    s.add(again)
    plan = s.schedule()
    assert plan.chunks[0].start == 4 and again.num_external_tokens == 4
    assert [copy.page for copy in tier.copies if not copy.to_host] == again.pages[:1]


def test_a_request_that_is_alone_waits_for_its_copies():
    tier = HostTier(20)
    s = Scheduler(
        BlockPool(15), page_size=4, max_num_seqs=2, max_num_batched_tokens=64, tier=tier
    )  # fmt: skip
    fill(s, [1] * 25)
    fill(s, [2] * 49)
    tier.room = lambda: 0
    s.add(make(1, [1] * 25))
    assert s.schedule().num_tokens == 1  # nobody else runs
