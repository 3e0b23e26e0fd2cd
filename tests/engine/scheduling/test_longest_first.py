"""Longest known prefix first, for a price that does not grow with those who wait."""

from engine.cache.block_pool import BlockPool
from engine.scheduling.scheduler import Scheduler
from tests.engine.scheduling.test_scheduler import compute, make, pieces


def lpm(pages=100, rows=4, budget=64):
    return Scheduler(
        BlockPool(pages), page_size=4, max_num_seqs=rows, max_num_batched_tokens=budget,
        longest_prefix_first=True,
    )  # fmt: skip


def know(s, tokens):
    """The cache has the pages of these tokens, but for the last one."""
    s.add(make(10**6, tokens, max_tokens=1))
    compute(s, s.schedule())
    assert not s.has_requests


def order(s):
    """Who gets the only row, one after another."""
    found = []
    while s.has_requests:
        plan = compute(s, s.schedule())
        found += [chunk.request.request_id for chunk in pieces(plan) if chunk.admitted]
    return found


def test_priority_then_what_is_known_then_arrival():
    s = lpm(rows=1)
    know(s, [1] * 13)
    lengths = {0: 0, 1: 4, 2: 12, 3: 12, 4: 8}
    for number, known in lengths.items():
        s.add(make(number, [1] * known + [2] * (16 - known), priority=number == 2, max_tokens=1))
    assert order(s) == [3, 4, 1, 0, 2]


def test_who_waits_is_compared_once_and_not_while_there_is_no_room(monkeypatch):
    s = lpm(pages=30, rows=4)
    asked = []
    monkeypatch.setattr(s.cache, "num_known", lambda keys, most: asked.append(len(keys)) or 0)
    s.add(make(0, [1] * 12, max_tokens=30))
    compute(s, s.schedule())
    for number in range(1, 1001):
        s.add(make(number, [number] * 44, max_tokens=4))
    before = len(asked)
    for _ in range(3):
        compute(s, s.schedule())
    assert len(s.running) == 3 and len(asked) - before <= 2 * 128  # 12 pages each: two found room
    before = len(asked)
    for _ in range(3):
        assert s.schedule().num_tokens <= 3
    assert len(asked) == before
    s.add(make(2000, [1] * 16, priority=-1))  # goes first all the same
    assert s.waiting.peek().request_id == 2000


def test_an_order_is_followed_for_a_few_steps():
    """Who comes later with more that is known waits for those steps, and goes first then."""
    s = lpm(rows=1)
    know(s, [1] * 13)
    for number in range(20):
        s.add(make(number, [number + 2] * 16, max_tokens=1))
    compute(s, s.schedule())
    s.add(make(99, [1] * 12 + [2] * 4, max_tokens=1))
    assert order(s)[:12].index(99) == 7


def test_one_of_another_life_is_not_taken_for_who_was_next():
    s = lpm(pages=5, rows=2)
    s.add(make(0, [1] * 11))
    compute(s, s.schedule())
    s.add(make(1, [2] * 11))
    s.schedule()
    assert s.waiting.peek().request_id == 1
    s.abort([1])
    again = make(1, [3] * 3)
    s.add(again)
    assert s.waiting.peek() is again


def test_nobody_waits_for_ever_behind_those_of_whom_more_is_known():
    """As many of these come as go; strangers go in the order in which they came."""
    s = lpm(rows=1)
    know(s, [1] * 13)

    def known(number):
        return make(number, [1] * 12 + [number % 40 + 5] * 4, max_tokens=1)

    for number in range(3):
        s.add(make(number, [number + 2] * 16, max_tokens=1))
    for number in range(100, 120):
        s.add(known(number))
    admitted = []
    while not {0, 1, 2} <= set(admitted):
        s.add(known(200 + len(admitted)))
        plan = compute(s, s.schedule())
        admitted += [chunk.request.request_id for chunk in pieces(plan) if chunk.admitted]
        assert len(admitted) < 300
    places = [admitted.index(each) for each in range(3)]
    assert places == sorted(places)
    assert places[0] > 40, "who is known goes first, but for one order in some"
