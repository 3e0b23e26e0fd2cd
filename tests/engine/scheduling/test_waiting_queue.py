"""Who waits is who was pushed and not discarded, also where a request id comes again."""

from hypothesis import given
from hypothesis import strategies as st

from engine.scheduling.waiting_queue import WaitingQueue
from tests.engine.scheduling.test_scheduler import compute, make, scheduler


def test_an_id_that_comes_again_is_another_request():
    queue = WaitingQueue()
    old, new = make(0, [1]), make(0, [2])
    queue.push(old)
    queue.discard(old)
    queue.push(new)
    assert queue.peek() is new and queue.first(5) == [new] and len(queue) == 1


def test_the_first_in_order():
    queue = WaitingQueue()
    requests = [make(number, [1], priority=priority) for number, priority in enumerate([1, 0, 0])]
    for request in requests:
        queue.push(request)
    assert queue.first(2) == [requests[1], requests[2]]
    queue.discard(requests[1])
    assert queue.first(5) == [requests[2], requests[0]]


@given(st.lists(st.integers(-3, 3), max_size=60), st.sets(st.integers(0, 59)), st.integers(0, 70))
def test_the_first_of_many_are_the_least(priorities, gone, count):
    queue = WaitingQueue()
    requests = [make(number, [1], priority=each) for number, each in enumerate(priorities)]
    for request in requests:
        queue.push(request)
    left = [each for each in requests if each.request_id not in gone]
    for number in gone & set(range(len(requests))):
        queue.discard(requests[number])
    assert queue.first(count) == sorted(left, key=lambda each: each.order)[:count]


def test_those_who_left_are_forgotten_while_the_first_keeps_waiting():
    queue = WaitingQueue()
    first = make(0, [1])
    queue.push(first)
    for number in range(1, 1000):
        request = make(number, [1])
        queue.push(request)
        queue.discard(request)
    assert len(queue._heap) < 100 and queue.peek() is first


def test_a_request_of_an_id_that_was_used_is_served_whole():
    s = scheduler()
    for _ in range(2):
        request = make(0, [1] * 8)
        s.add(request)
        while s.has_requests:
            compute(s, s.schedule())
        assert request.num_generated == 4
