"""The scheduler with states beside the pages, against a device that keeps and checks both.

A state here is the tokens that made it, so a row that goes on from a wrong one is seen at once.
"""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import initialize, invariant

from engine.cache.block_pool import BlockPool
from engine.cache.state_snapshots import StateSnapshots
from engine.scheduling.plan import Plan
from engine.scheduling.scheduler import Scheduler
from tests.engine.scheduling.test_scheduler import (
    PagedMemory,
    SchedulerMachine,
    compute,
    make,
    pieces,
)


class StateMemory(PagedMemory):
    """Pages, and slot -> the tokens behind which its state is."""

    def __init__(self, page_size):
        super().__init__(page_size)
        self.states = {}

    def run(self, plan: Plan):
        assert not plan.forks, "a state is behind whole pages only"
        results = super().run(plan)
        chunks = pieces(plan)
        sources = [c.slot if c.source is None else c.source for c in chunks]
        read = [self.states.get(source) for source in sources]
        kept = [chunk.kept[1] for chunk in plan.chunks if chunk.kept is not None]
        assert len(kept) == len(set(kept)) and not set(kept) & set(sources)
        turned = set()
        for chunk, state in zip(chunks, read, strict=True):
            before = self.tokens(chunk, 0, chunk.start)
            if chunk.slot in turned:  # a later turn of a window
                state = self.states[chunk.slot]
            assert not before or state == before, "the row goes on from another state"
            self.states[chunk.slot] = self.tokens(chunk, 0, chunk.start + chunk.count)
            turned.add(chunk.slot)
            if chunk.kept is not None:
                count, slot = chunk.kept
                assert 0 < count <= chunk.count
                self.states[slot] = self.tokens(chunk, 0, chunk.start + count)
        return results

    def tokens(self, chunk, start, end):
        places = [(chunk.request.pages[p // 4], p % 4) for p in range(start, end)]
        return [self.cells[place] for place in places]


class StatesMachine(SchedulerMachine):
    """As the one for pages; few snapshots, or none at all."""

    @initialize(
        pages=st.integers(13, 40),
        rows=st.integers(1, 5),
        budget=st.integers(5, 40),
        longest_first=st.booleans(),
        windows=st.sampled_from([[], [4, 2]]),
        snapshots=st.integers(0, 4),
    )
    def start(self, pages, rows, budget, longest_first, windows, snapshots):
        self.snapshots = StateSnapshots(rows + 1, snapshots) if snapshots else None
        self.num_snapshots = snapshots
        super().start(
            pages, rows, budget, longest_first, windows,
            prefix_caching=bool(snapshots), snapshots=self.snapshots,
        )  # fmt: skip
        self.memory = StateMemory(4)

    @invariant()
    def snapshots_are_free_or_kept(self):
        if getattr(self, "snapshots", None):
            slots = [*self.snapshots._slots.values(), *self.snapshots._free]
            assert len(slots) == len(set(slots)) == self.num_snapshots


TestStates = StatesMachine.TestCase
TestStates.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_state_that_was_not_computed_is_computed_again():
    """The next who begins alike finds a state that the device has."""
    memory, snapshots = StateMemory(4), StateSnapshots(3, 2)
    s = Scheduler(
        BlockPool(40), page_size=4, max_num_seqs=2, max_num_batched_tokens=64, snapshots=snapshots
    )
    first, second = make(0, [1] * 9, max_tokens=1), make(1, [1] * 9, max_tokens=1)
    s.add(first)
    s.undo(s.schedule())
    assert len(snapshots) == 0
    plan = s.schedule()
    memory.run(plan)
    compute(s, plan)
    s.add(second)
    plan = s.schedule()
    memory.run(plan)
    assert (plan.chunks[0].start, plan.chunks[0].source) == (8, 3)


def test_a_page_that_is_not_full_is_not_kept():
    """No state is behind its tokens, and where it lies there is no room for another."""
    s = Scheduler(
        BlockPool(40), page_size=4, max_num_seqs=2, max_num_batched_tokens=64,
        snapshots=StateSnapshots(3, 2),
    )  # fmt: skip
    s.add(make(0, [1] * 9, max_tokens=1))
    compute(s, s.schedule())
    assert s.pool.num_idle == 2
