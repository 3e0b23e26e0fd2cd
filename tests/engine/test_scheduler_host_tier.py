"""The scheduler with a host tier, against a device that makes the copies it is asked for.

Pages go to the host and come back, are forked and gone on with in place, while requests are
preempted, aborted and interrupted.
"""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import initialize

from engine.host_tier import HostTier
from engine.plan import Plan
from tests.engine.test_scheduler import PagedMemory, SchedulerMachine


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
                self.cells.update(zip(places, host.content, strict=True))
            elif host.wanted:
                host.content = [self.cells.get(place) for place in places]
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
    )
    def start(self, pages, rows, budget, longest_first, windows, capacity):
        tier = HostTier(capacity)
        super().start(pages, rows, budget, longest_first, windows, tier=tier)
        self.memory = TieredMemory(4, tier)


TestTier = TierMachine.TestCase
TestTier.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
