"""--num-scheduler-steps auto: windows that are as long as whoever comes may wait, one at a time."""

from types import SimpleNamespace

import pytest

from engine.compiling.shapes import Shapes
from engine.messages import AddRequest
from engine.sampling.params import SamplingParams
from engine.scheduling import pace
from engine.scheduling.pace import LONGEST, Pace
from engine.scheduling.plan import Plan
from tests.engine.conftest import few_programs, make_core, run

SHAPES = Shapes(16, 32, 100, 16, (4, 2), loops=True)


class Clock:
    """Seconds that a test lets pass."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def timed(monkeypatch):
    """A pace, and what lets it read a step of so many rows that was started so long ago."""
    clock = Clock()
    monkeypatch.setattr(pace, "perf_counter", clock)
    own = Pace(SimpleNamespace(shapes=SHAPES, windows=lambda rows: [4, 2]))

    def read(rows, started, took, window=1):
        clock.now += took
        plan = Plan(window=window)
        shape = SHAPES.smallest_decode(rows)
        own.has_read(SimpleNamespace(started=clock.now - started, shape=shape, plan=plan))

    return own, read


def test_a_window_takes_no_longer_than_who_comes_may_wait(timed):
    own, read = timed
    assert own.windows(1) == [], "nothing is known of it yet"
    for seconds, windows in ((0.9, [4, 2]), (1.1, [2]), (1.9, [2]), (2.1, [])):
        turn = seconds * LONGEST / 4
        read(1, turn, turn)
        assert own.windows(1) == windows
    read(1, LONGEST, LONGEST, window=4)
    assert own.windows(1) == [4, 2], "each of its turns took a quarter of that"


def test_steps_of_so_many_rows_are_timed_by_themselves(timed):
    own, read = timed
    read(3, 0.001, 0.001)
    assert own.windows(4) == [4, 2] and own.windows(2) == own.windows(5) == []


def test_a_step_behind_another_begins_when_that_is_done(timed):
    own, read = timed
    read(1, 0.02, 0.02)
    read(1, 0.04, 0.02)  # it was started beside the one before
    assert own.windows(1) == [4, 2]
    read(1, 0.04, 0.04)
    assert own.windows(1) == [2]


@pytest.fixture(scope="module")
def engines(tiny_folder):
    """One that chooses, and one that starts every step by itself."""
    with pytest.MonkeyPatch.context() as patch:
        few_programs(patch)
        made = [make_core(tiny_folder, num_scheduler_steps=steps) for steps in ("auto", 1)]
        for each in made:
            each.wait_for_programs()
        yield made
        for each in made:
            each.close()


@pytest.fixture(scope="module")
def engine(engines):
    return engines[0]


@pytest.mark.parametrize("options", [
    {}, {"temperature": 1.0, "seed": 7}, {"logprobs": 2}, {"repetition_penalty": 1.4},
    {"stop_token_ids": [*range(3, 60, 7)]},
], ids=["greedy", "drawn", "logprobs", "penalty", "stop ids"])  # fmt: skip
def test_the_same_tokens_as_one_by_one(engines, monkeypatch, options):
    monkeypatch.setattr(pace, "LONGEST", 1e9)
    prompts, before = [[5, 6, 7], [9] * 30, [11]], [each.stats.num_steps for each in engines]
    texts = [run(each, prompts, **{"max_tokens": 23, **options}) for each in engines]
    steps = [each.stats.num_steps - b for each, b in zip(engines, before, strict=True)]
    assert 2 * steps[0] < steps[1], "no window was used"
    for mine, theirs in zip(*texts, strict=True):
        assert (mine.ids, mine.finish_reason) == (theirs.ids, theirs.finish_reason)
        assert [p.token_ids for p in mine.logprobs] == [p.token_ids for p in theirs.logprobs]


@pytest.mark.parametrize("share, most", [(0.9, 1), (0.4, 2)])
def test_who_comes_waits_for_one_window_or_for_two_where_both_fit(engine, monkeypatch, share, most):
    """Wherever it comes: the next step that is started is its own."""
    launched, windows, launch = [], [], engine._runner.launch
    monkeypatch.setattr(engine._pace, "_turns", {4: share * LONGEST / 4})
    monkeypatch.setattr(engine._pace, "has_read", lambda launched: None)

    def watched(plan):
        launched.append(plan)
        plans = [plan, *(each.plan for each in engine._launched)]
        windows.append(sum(each.window > 1 for each in plans))
        return launch(plan)

    monkeypatch.setattr(engine._runner, "launch", watched)
    engine.add(request(0, 100))
    for number in range(1, 12):
        for _ in range(number % 4):
            engine.step()
        engine.add(request(number, 1))
        count = len(launched)
        while len(launched) == count:
            engine.step()
        assert [chunk.request.request_id for chunk in launched[-1].chunks] == [number]
    assert max(windows) == most, "windows that are on the device at a time"
    engine.abort([0])
    while engine.has_work:
        engine.step()


def test_a_loop_needs_no_more_memory_than_what_was_asked_before(engine):
    """Pages were sized by the others; loops are compiled when these are here."""
    largest = engine._runner.programs.shapes.largest()
    needed = {program.shape: program.temporary_bytes for program in engine.programs}
    assert {shape.window for shape in needed} == {1, 4}
    assert max(needed.values()) == max(needed[shape] for shape in largest)


def test_slow_steps_are_started_one_by_one(engine, monkeypatch):
    monkeypatch.setattr(pace, "LONGEST", 0.0)
    before = engine.stats.num_steps
    (text,) = run(engine, [[5, 6]], max_tokens=12, ignore_eos=True)
    assert len(text.ids) == 12 and engine.stats.num_steps - before >= 12


def request(number, max_tokens):
    params = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
    return AddRequest(request_id=number, prompt_token_ids=[5, 6, number], params=params)
