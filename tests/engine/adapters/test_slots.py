"""Slots of adapters, and the order in which requests get them."""

import hypothesis.strategies as st
from hypothesis import given

from engine.adapters.request import LoRARequest, namespace
from engine.adapters.slots import NO_ADAPTER, AdapterSlots
from engine.cache.block_pool import BlockPool
from engine.messages import AddRequest
from engine.request import make_request
from engine.sampling.params import SamplingParams
from engine.scheduling.scheduler import Scheduler

ADAPTERS = [LoRARequest(name, number, name) for number, name in enumerate("abcde", 1)]


def is_here(lora: LoRARequest) -> bool:
    return True


@given(st.integers(1, 3), st.lists(st.integers(0, 9)))
def test_one_slot_has_one_adapter_while_it_is_in_use(count, moves):
    """0 .. 4: a request with this adapter begins, if it may; 5 .. 9: one that has it ends."""
    slots, running, holds = AdapterSlots(count, is_here), [], {}
    for move in moves:
        lora = ADAPTERS[move % 5]
        slots.begin_step()
        if move >= 5 and lora in [each for each, _ in running]:
            place = next(n for n, (each, _) in enumerate(running) if each == lora)
            slots.release(running.pop(place)[0])
        elif move < 5:
            known = {each for each, _ in running}
            assert slots.holds_up(lora) == (lora not in known and len(known) == count)
            if not slots.holds_up(lora):
                running.append((lora, slots.take(lora)))
                holds |= slots.due
                slots.due.clear()
        assert all(holds[slot] == each for each, slot in running)
        assert len({slot for _, slot in running}) == len({each for each, _ in running}) <= count


def test_who_was_idle_for_longest_goes():
    a, b, c, *_ = ADAPTERS
    slots = AdapterSlots(2, is_here)
    for lora in (a, b, a):  # a is used again, and b not
        slots.take(lora)
        slots.release(lora)
    slots.release(a)
    slots.take(c)
    assert slots.due == {0: a, 1: c}
    assert slots.take(None) == NO_ADAPTER and not slots.holds_up(None)


def scheduler_with(
    requests: list[LoRARequest | None], slots: int, rows: int = 4, here=is_here
) -> Scheduler:
    made = Scheduler(
        BlockPool(32), page_size=4, max_num_seqs=rows, max_num_batched_tokens=16,
        longest_prefix_first=True, adapters=AdapterSlots(slots, here),
    )  # fmt: skip
    for number, lora in enumerate(requests):
        message = AddRequest(
            request_id=number, prompt_token_ids=[1, 2], params=SamplingParams(), lora=lora
        )
        made.add(make_request(message, arrival=number, seed=0, max_model_len=9, eos=frozenset()))
    return made


def test_only_requests_without_an_adapter_pass_those_that_wait_for_theirs():
    a, b, *_ = ADAPTERS
    scheduler = scheduler_with([a, b, a, None, None], slots=1)

    def running() -> list[int]:
        scheduler.schedule()
        return [request.request_id for request in scheduler.running]

    assert running() == [0, 3, 4]  # 2 has the adapter that is there, and came after 1
    assert len(scheduler.waiting) == 2
    scheduler.abort([2])
    assert len(scheduler.waiting) == 1 and running() == [0, 3, 4]
    scheduler.abort([0])
    assert running() == [1, 3, 4]
    assert [r.adapter_slot for r in scheduler.running] == [0, NO_ADAPTER, NO_ADAPTER]


def test_who_waits_until_an_adapter_is_read_is_passed_and_gets_a_slot_before_others():
    a, b, c, *_ = ADAPTERS
    read, asked = {b}, []

    def here(lora):
        asked.append(lora)
        return lora in read

    scheduler = scheduler_with([a, b, c, None, b], slots=2, here=here)
    scheduler.schedule()
    assert [r.request_id for r in scheduler.running] == [1, 3, 4]
    assert asked == [a, b, c]
    assert {r.request_id for r in scheduler.waiting.all()} == {0, 2}
    read.add(c)
    scheduler.abort([1, 4])
    scheduler.schedule()
    assert [r.request_id for r in scheduler.running] == [2, 3]
    read.add(a)
    scheduler.schedule()
    assert [r.request_id for r in scheduler.running] == [0, 2, 3]


@given(st.text(max_size=9), st.text(max_size=9))
def test_no_salt_is_another_s_namespace(salt, other):
    a, b, *_ = ADAPTERS
    pairs = [(salt, None), (other, None), (salt, a), (other, a), (salt, b)]
    pairs += [(namespace(salt, lora), None) for lora in (a, b)]
    assert len({namespace(*pair) for pair in pairs}) == len({*pairs})
