"""Rows with a grammar beside free ones: a token in each step, and the tokens that they write alone.

The engine's steps are checked: a token taken from a slot must be the newest, and is taken once.
"""

import json
import threading

import pytest

from engine.grammar.matcher import Constraint
from engine.messages import AddRequest
from engine.sampling.params import SamplingParams
from tests.engine.conftest import Text
from tests.engine.grammar.test_constrained import PERSON, PROMPT, run

pytestmark = pytest.mark.usefixtures("built_at_once")
FREE = ("", {"max_tokens": 100, "ignore_eos": True, "seed": 9})
OPTIONS = {
    "seeded": {},
    "greedy": {"temperature": 0},
    "penalties": {"presence_penalty": 1.5, "repetition_penalty": 1.8, "frequency_penalty": 1.0},
    "logprobs": {"logprobs": 3},
    "least": {"min_tokens": 12, "stop_token_ids": [70, 71, 72, 73]},
    "bias": {"logit_bias": {token: 3.0 for token in range(40, 90, 3)}},
}


@pytest.fixture(params=["in time", "every third step"])
def masks(engine, monkeypatch, request):
    """Masks are there when a step is to be launched; or in each third step, for those before."""
    collect, calls = engine._constraints.collect_moved, []

    def collected(seconds):
        calls.append(seconds)
        return collect(30) if request.param == "in time" or len(calls) % 3 == 0 else []

    monkeypatch.setattr(engine._constraints, "collect_moved", collected)


@pytest.fixture
def late(engine, monkeypatch):
    """Ids of requests, once for each token that was chosen after its step."""
    chosen, sample_late = [], engine._runner.sample_late

    def counted(rows):
        chosen.extend(each.request.request_id for each in rows)
        return sample_late(rows)

    monkeypatch.setattr(engine._runner, "sample_late", counted)
    return chosen


@pytest.fixture(scope="module")
def alone(engine):
    """`alone(grammar, options)`: what a request writes by itself, asked once."""
    known = {}

    def text(grammar, options):
        key = grammar, repr(options)
        if key not in known:
            [known[key]] = run(engine, [(grammar, options)])
        return known[key]

    return text


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_the_same_tokens_as_alone(engine, source, masks, late, alone, options):
    person = source(json=json.dumps(PERSON))
    each = [(person, {"seed": 3, "max_tokens": 60, **options})]
    each += [(source(regex="([a-z]{4,9} ){3,}[0-9]"), {"seed": 4, "max_tokens": 40, **options})]
    expected = [alone(*one) for one in each]
    free = alone(*FREE)
    assert late == []
    together = run(engine, [FREE, *each])
    assert set(late) == {1, 2}
    for mine, other in zip(together[1:], expected, strict=True):
        assert (mine.ids, mine.finish_reason) == (other.ids, other.finish_reason)
        assert [p.token_ids for p in mine.logprobs] == [p.token_ids for p in other.logprobs]
    assert together[0].ids == free.ids


@pytest.mark.parametrize("masks", ["in time"], indirect=True)
def test_a_token_in_each_step(engine, source, masks, late):
    before = engine.stats.num_steps
    word = source(regex="[a-z]{90}")
    texts = run(engine, [(word, {"max_tokens": 20}), (word, {"max_tokens": 20}), FREE])
    assert [len(text.ids) for text in texts[:2]] == [20, 20]
    assert len(late) == 2 * 19 and engine.stats.num_steps - before < 103


@pytest.mark.parametrize("masks", ["in time"], indirect=True)
def test_what_a_row_computed_ahead_is_of_use_though_its_grammar_forces_the_next(
    engine, source, masks, late, alone
):
    schema = {"type": "object", "properties": {"first": {"type": "integer"}, "second": {}}}
    forced = source(json=json.dumps({**schema, "required": ["first"]}))
    one = (forced, {"seed": 1, "max_tokens": 50})
    [text, _] = run(engine, [one, FREE])
    assert text.ids == alone(*one).ids and 0 < len(late) < len(text.ids) - 1


@pytest.mark.parametrize("masks", ["in time"], indirect=True)
def test_rows_that_end_while_they_wait_leave_nothing(engine, source, masks, alone, monkeypatch):
    """Aborted, failed and preempted; their neighbours write what they would."""
    word = source(regex="[a-z]{90}")
    expected = alone(*FREE).ids
    for number in range(3):
        grammar = word if number else ""
        params = SamplingParams(**{"temperature": 1.0, "max_tokens": 60, **FREE[1], "seed": 9})
        engine.add(
            AddRequest(
                request_id=number, prompt_token_ids=PROMPT, params=params, grammar=grammar
            )
        )  # fmt: skip
    said = []
    for turn in range(400):
        if turn == 9:
            engine.abort([1])
        if turn == 12:
            monkeypatch.setattr(Constraint, "advance", _fails)
        said += [t for d in engine.step().deltas if not d.request_id for t in d.new_token_ids]
        if not engine.has_work:
            break
    assert said == expected and len(engine._late) == 0
    assert engine.step().stats.num_free_pages == engine.stats.num_pages


def test_a_slow_grammar_does_not_hold_up_another(engine, source, late, monkeypatch):
    """While one row's logits are kept for a mask that does not come, the other runs ahead."""
    free_to_go, advance = threading.Event(), Constraint.advance

    def slowly(self, token_id):
        request = engine._scheduler._requests.get(0)
        if request is not None and self is request.constraint:
            free_to_go.wait(30)
        return advance(self, token_id)

    monkeypatch.setattr(Constraint, "advance", slowly)
    word, texts = source(regex="[a-z]{90}"), [Text(), Text(), Text()]
    for number, length in enumerate([5, 20, 220]):
        params = SamplingParams(temperature=1.0, seed=1, max_tokens=length, ignore_eos=True)
        grammar = word if number < 2 else ""
        engine.add(
            AddRequest(
                request_id=number, prompt_token_ids=PROMPT, params=params, grammar=grammar
            )
        )  # fmt: skip
    while engine.has_work:
        for delta in engine.step().deltas:
            texts[delta.request_id].add(delta)
        if texts[1].finish_reason is not None and not free_to_go.is_set():
            assert len(texts[0].ids) == 1 and len(engine._late) == 1 and late.count(1) > 9
            free_to_go.set()
    assert [len(text.ids) for text in texts] == [5, 20, 220]
    assert texts[0].ids == texts[1].ids[:5]


def _fails(self, token_id):
    raise ValueError("a grammar's own failure")


@pytest.mark.parametrize("masks", ["in time"], indirect=True)
def test_interrupted_launches_lose_nothing(engine, source, masks, monkeypatch):
    """A notebook's stop button, in the middle of a launch, after rows were sampled late."""
    each = [(source(regex="[a-z]{90}"), {"seed": 5, "max_tokens": 30}), FREE]
    expected = [text.ids for text in run(engine, each)]
    launch, step, calls = engine._runner.launch, engine.step, []

    def interrupted(plan):
        calls.append(plan)
        if len(calls) % 7 == 0:
            raise KeyboardInterrupt
        return launch(plan)

    def patient_step():
        while True:
            try:
                return step()
            except KeyboardInterrupt:
                pass

    monkeypatch.setattr(engine._runner, "launch", interrupted)
    monkeypatch.setattr(engine, "step", patient_step)
    assert [text.ids for text in run(engine, each)] == expected and len(calls) > 50
