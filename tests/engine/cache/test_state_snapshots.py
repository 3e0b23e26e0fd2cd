"""Which states are kept: what a step may read and write, and what goes first."""

import pytest

from engine.cache.page_key import PageKey
from engine.cache.state_snapshots import StateSnapshots

KEYS = [PageKey(bytes([n]), b"", b"") for n in range(5)]


@pytest.fixture
def snapshots() -> StateSnapshots:
    return StateSnapshots(first=9, count=2)


def test_a_state_is_found_in_the_step_after_it_was_kept(snapshots: StateSnapshots) -> None:
    slot = snapshots.keep(KEYS[1])
    assert slot == 9
    assert snapshots.longest(KEYS) == 0
    snapshots.begin_step()
    assert snapshots.longest(KEYS) == 2
    assert snapshots.longest(KEYS[:1]) == 0
    assert snapshots.read(KEYS[1]) == slot
    assert snapshots.keep(KEYS[1]) is None  # it is there


def test_what_was_wanted_least_recently_goes_first(snapshots: StateSnapshots) -> None:
    slots = []
    for key in KEYS[:2]:
        snapshots.begin_step()
        slots.append(snapshots.keep(key))
    snapshots.begin_step()
    snapshots.read(KEYS[0])
    assert snapshots.keep(KEYS[2]) == slots[1]
    snapshots.begin_step()
    assert snapshots.longest(KEYS[:2]) == 1


def test_what_a_step_reads_or_writes_stays_in_that_step(snapshots: StateSnapshots) -> None:
    snapshots.keep(KEYS[0])
    snapshots.begin_step()
    snapshots.read(KEYS[0])
    snapshots.keep(KEYS[1])
    assert snapshots.keep(KEYS[2]) is None
    snapshots.begin_step()
    assert snapshots.keep(KEYS[2]) is not None


def test_what_was_not_computed_is_forgotten(snapshots: StateSnapshots) -> None:
    slot = snapshots.keep(KEYS[0])
    assert slot is not None
    snapshots.discard(slot)
    snapshots.begin_step()
    assert snapshots.longest(KEYS) == len(snapshots) == 0
    assert {snapshots.keep(KEYS[1]), snapshots.keep(KEYS[2])} == {9, 10}


def test_all_can_be_forgotten(snapshots: StateSnapshots) -> None:
    for key in KEYS[:2]:
        snapshots.keep(key)
    snapshots.clear()
    snapshots.begin_step()
    assert snapshots.longest(KEYS) == len(snapshots) == 0
    assert {snapshots.keep(KEYS[1]), snapshots.keep(KEYS[2])} == {9, 10}
