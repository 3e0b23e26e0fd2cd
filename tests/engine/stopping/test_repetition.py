"""Repetition detection against its definition, and in outputs."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.messages import EngineStats, RequestDelta, StepReport
from engine.output_processor import OutputProcessor
from engine.sampling.params import SamplingParams
from engine.stopping.repetition import MAX_PATTERN_SIZE, Repetition, RepetitionDetectionParams

untimed = settings(deadline=None, derandomize=True)


def repeats(ids: list[int], params: RepetitionDetectionParams) -> bool:
    """The definition: the end of `ids` is some pattern, `min_count` times in a row."""
    for size in range(max(1, params.min_pattern_size), params.max_pattern_size + 1):
        whole = size * params.min_count
        if len(ids) >= whole and ids[-whole:] == ids[len(ids) - size :] * params.min_count:
            return True
    return False


@untimed
@given(
    ids=st.lists(st.integers(0, 2), max_size=60),
    sizes=st.tuples(st.integers(0, 6), st.integers(0, 6)).map(sorted),
    count=st.integers(2, 5),
)
def test_it_is_what_the_definition_says(ids, sizes, count):
    smallest, largest = sizes
    params = RepetitionDetectionParams(max(1, largest), smallest, count)
    watched = Repetition(params)
    for place, token in enumerate(ids, 1):
        assert watched.sees(token) == repeats(ids[:place], params)


def test_answers_that_wait_take_no_memory():
    params = RepetitionDetectionParams(MAX_PATTERN_SIZE, 0, 2)
    tracemalloc.start()
    try:
        waiting = [Repetition(params) for _ in range(100)]
        assert tracemalloc.get_traced_memory()[0] < 100 * MAX_PATTERN_SIZE
    finally:
        tracemalloc.stop()
    assert not waiting[0].sees(1) and waiting[0].sees(1) and not waiting[1].sees(1)


def run(ids, finish="length", chunk=1, **options):
    """What one request has become of whose answer the engine gives `ids`, `chunk` a step."""
    processor = OutputProcessor(None)
    params = SamplingParams(max_tokens=None, **options)
    [added] = processor.add("r", [9], params)
    assert added.params.repetition_detection is None  # the engine need not know
    said = []
    for start in range(0, len(ids), chunk):
        last = start + chunk >= len(ids)
        delta = RequestDelta(
            request_id=added.request_id,
            new_token_ids=ids[start : start + chunk],
            finish_reason=finish if last else None,
        )
        step = processor.process(StepReport(deltas=[delta], stats=EngineStats()))
        said += [token for output in step.outputs for token in output.token_ids]
        if not processor.num_unfinished:
            [output] = step.outputs
            return said, output.finish_reason, output.stop_reason, bool(step.aborts)
    raise AssertionError("it did not end")


TWICE = {"max_pattern_size": 2, "min_count": 2}


@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_an_answer_ends_with_the_token_that_repeats_once_too_often(chunk):
    ids = [1, 2, 3, 4, 3, 4, 5, 6]
    said, *ending, aborted = run(ids, chunk=chunk, repetition_detection=TWICE)
    assert said == ids[:6] and ending == ["repetition", "repetition_detected"]
    assert aborted == (chunk < 8)  # else the engine ended it itself, with that step


def test_other_ends_go_before_it():
    assert run([3, 4, 3, 4], repetition_detection=TWICE)[1:3] == ("length", None)
    assert run([3, 4, 3, 4], "stop", repetition_detection=TWICE)[1] == "stop"
    early = run([3, 3, 3, 3, 3], repetition_detection=TWICE, min_tokens=3)
    assert early[0] == [3, 3, 3] and early[1] == "repetition"
    assert run([3, 3, 3], repetition_detection={"max_pattern_size": 0})[1] == "length"


@pytest.mark.parametrize(
    "wanted",
    [
        5, [], {"size": 1}, {"max_pattern_size": 1}, {"max_pattern_size": 1, "min_count": 1},
        {"max_pattern_size": 1, "min_pattern_size": 2, "min_count": 2},
        {"max_pattern_size": -1, "min_pattern_size": -1, "min_count": 2},
        {"max_pattern_size": MAX_PATTERN_SIZE + 1, "min_count": 2},
        {"max_pattern_size": 1.5, "min_count": 2}, {"max_pattern_size": 2, "min_count": 2**40},
        RepetitionDetectionParams(1, 0, 0),
    ],
)  # fmt: skip
def test_what_cannot_be_looked_for_is_refused(wanted):
    with pytest.raises(RequestError) as refused:
        SamplingParams(repetition_detection=wanted)
    assert refused.value.param == "repetition_detection"
