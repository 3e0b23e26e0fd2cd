"""The front's benchmark on a few requests: it measures what it says, and the front bears it."""

from pathlib import Path

import pytest

from serve.bench import front as bench


@pytest.fixture(scope="module")
def front():
    with bench.running() as running:
        running.wait_for("/health")
        yield running


def test_every_request_is_answered(front):
    completions = bench.measure_completions(front, count=40, at_once=8)
    assert completions["completions_failed"] == 0 and completions["completions_per_s"] > 0
    # the engine is faster than any front: what piles up is merged
    assert 0 < bench.measure_chunks(front, streams=8, tokens=20)["chunks_per_token"] <= 1


def test_streams_that_are_dropped_leave_nothing(front):
    found = bench.measure_dropped(front, count=60)
    assert found["dropped_left_running"] == 0 and found["dropped_left_files"] <= 0
    assert found["dropped_left_mb"] < 10


def test_the_front_is_small_and_has_no_jax(front):
    assert front.megabytes() < 200
    assert "jaxlib" not in Path(f"/proc/{front._process.pid}/maps").read_text()


def test_a_full_queue_refuses_all():
    flags = ("--max-num-seqs", "8", "--max-num-queued-reqs", "8")
    with bench.running(*flags, step=0.01) as full:
        full.wait_for("/health")
        found = bench.measure_rejections(full, count=20)
    assert found["rejected"] == 20 and found["rejection_p99_ms"] >= found["rejection_p50_ms"] > 0


def test_delays_are_counted_and_a_drop_costs_a_step():
    with bench.running(step=0.05) as slow:
        slow.wait_for("/health")
        found = bench.measure_streams(slow, 4, tokens=20)
        assert bench.measure_chunks(slow, streams=8, tokens=20)["chunks_per_token"] > 0.5
        assert found["streams_failed"] == 0 and 4 <= found["stream_chunks"] <= 4 * 20
        assert 0 <= found["front_share_of_cpu"] < 1.01
        assert bench.measure_aborts(slow, count=5)["steps_after_drop_p50"] <= 2


def test_what_is_no_answer_is_no_measurement():
    with pytest.raises(RuntimeError, match="status 503"):
        bench._check([bench.Reply(200, 1, 0.1), bench.Reply(503, 0, 0.1)])
