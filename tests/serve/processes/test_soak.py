"""The soak, for seconds instead of an hour: it asks, checks the answers, and finds faults."""

import asyncio

import pytest

from serve.bench.front import running
from tests import soak
from tests.serve.processes.test_engine_end_to_end import FEW
from tests.soak import Soak


@pytest.fixture(scope="module")
def front():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_NUM_CPU_DEVICES", "1")  # as users have; else other programs
        with running(*soak.FLAGS, *FEW, module="serve") as front:
            front.wait_for("/health")
            front.wait_until_quiet()  # what compiles meanwhile is growth, too
            yield front


def test_nothing_is_left_of_some_seconds(front):
    short = Soak(front, seconds=4)
    asyncio.run(short.run(clients=8, seed=1))
    assert not short.faults and short.counts["answered"] > 0 < short.counts["left"]


def test_another_answer_and_growth_are_faults(front, monkeypatch):
    monkeypatch.setattr(soak, "GOOD", soak.GOOD[:1])
    monkeypatch.setattr(soak, "GROWTH_MB", -(10**6))
    texts = soak.texts_of
    calls = []

    def changing(answer):
        calls.append(answer)
        return [f"{text}{len(calls)}" for text in texts(answer)]

    monkeypatch.setattr(soak, "texts_of", changing)
    short = Soak(front, seconds=1)
    asyncio.run(short.run(clients=2, seed=2))
    assert any("another answer" in fault for fault in short.faults)
    assert any(fault.startswith("MB grew") for fault in short.faults)
