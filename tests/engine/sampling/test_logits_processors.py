"""Logits processors of users: arguments are data, and neighbours do not notice."""

from typing import Any

import jax
import numpy as np
import pytest

from engine.errors import ConfigError, RequestError
from engine.messages import AddRequest
from engine.sampling.logits_processors import load_processors
from engine.sampling.params import SamplingParams
from tests.engine.conftest import VOCAB, make_core, run

HERE = "tests.engine.boosting"
NAMES = (f"{HERE}:Boost", f"{HERE}:Only", f"{HERE}:Spoils")
PROMPT = [5, 6, 7]


@pytest.fixture(scope="module")
def engine(tiny_folder):
    core = make_core(tiny_folder, max_num_batched_tokens=16, logits_processors=NAMES)
    core.wait_for_programs()
    yield core
    core.close()


def ask(**options) -> SamplingParams:
    return SamplingParams(**{"temperature": 0, "max_tokens": 8, "ignore_eos": True, **options})


def test_requests_are_changed_as_they_ask(engine):
    params = [
        ask(extra_args={"boost_token": 42}),
        ask(extra_args={"boost_token": 42, "boost": -1e4}),
        ask(extra_args={"only": [3, 4]}, temperature=1.0, seed=1),
        ask(extra_args={"only": [3], "boost_token": 9}),  # one after the other
        ask(extra_args={"boost_token": 42}, allowed_token_ids=[50, 51]),  # a ban stays one
    ]
    boosted, lowered, few, both, banned = run(engine, [PROMPT] * 5, params)
    assert boosted.ids == [42] * 8
    assert 42 not in lowered.ids
    assert set(few.ids) == {3, 4}
    assert both.ids == [3] * 8
    assert set(banned.ids) <= {50, 51}


def test_neighbours_are_unharmed_bit_for_bit(engine, core):
    """Steps of the same rows: more rows may be another product, and its sums another order."""
    quiet = [ask(seed=s, temperature=t, logprobs=3) for s, t in ((1, 1.0), (2, 0.0), (3, 0.7))]

    def beside(args: dict[str, Any]) -> list[Any]:
        engine.reset_prefix_cache()  # what it holds was computed in steps of other rows
        neighbour = ask(extra_args=args, logprobs=1, max_tokens=12)
        first, between, *others = run(engine, [PROMPT] * 4, [quiet[0], neighbour, *quiet[1:]])
        assert len(between.ids) == 12
        return [first, *others]

    loud, calm = beside({"spoil": True}), beside({})
    for here, there in zip(loud, calm, strict=True):
        assert here.ids == there.ids
        assert [each.logprobs for each in here.logprobs] == [e.logprobs for e in there.logprobs]
    without = run(core, [PROMPT] * 3, quiet)  # an engine that has no processors
    assert [each.ids for each in without] == [each.ids for each in calm]


def test_no_arguments_cause_a_compile(engine):
    compiled = []
    rng = np.random.default_rng(0)

    def listen(event, duration, **_):
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        options = [{}, {"boost_token": 1}, {"only": []}, {"invert": True}, {"spoil": False}]
        for _ in range(20):
            several = [ask(max_tokens=3, extra_args=options[i]) for i in rng.integers(0, 5, 4)]
            run(engine, [PROMPT] * 4, several)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled == []
    assert engine.stats.num_compiles_after_warmup == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bost": 1}, "'bost', which no logits processor takes; they take boost_token, boost, on"),
        ({"boost_token": 97}, "boost_token is no token of this model"),
        ({"boost_token": 1.5}, "boost_token must be int32, got 1.5"),
        ({"boost_token": True}, "boost_token must be int32"),
        ({"boost_token": 2**40}, "boost_token must be int32"),
        ({"boost_token": [1]}, "boost_token must be int32"),
        ({"boost": 1e300}, "boost must be float32"),
        ({"only": 1}, "only must be a list of at most 3 int32"),
        ({"only": [1, 2, 3, 4]}, "only must be a list of at most 3 int32"),
        ({"spoil": 1}, "spoil must be bool"),
    ],
)
def test_arguments_that_cannot_be(engine, given, said):
    with pytest.raises(RequestError, match="extra_args") as raised:
        engine.add(
            AddRequest(request_id=0, prompt_token_ids=PROMPT, params=ask(extra_args=given))
        )  # fmt: skip
    assert said in str(raised.value)
    assert raised.value.param == "extra_args"
    assert not engine.has_work


def test_an_engine_without_processors_takes_no_arguments(core):
    with pytest.raises(RequestError, match="they take nothing, for this server has none"):
        core.add(
            AddRequest(request_id=0, prompt_token_ids=[1], params=ask(extra_args={"a": 1}))
        )  # fmt: skip


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["no_such_module:A"], "cannot be imported (ModuleNotFoundError"),
        ([f"{HERE}:Missing"], "cannot be imported (AttributeError"),
        (["boost"], "neither module:Class nor an entry point"),
        ([f"{HERE}:Other"], "no subclass of engine.LogitsProcessor"),
        ([f"{HERE}:np"], "no subclass"),
        ([f"{HERE}:TooNarrow"], "must keep shape and type"),
        ([f"{HERE}:Raises"], "fails: KeyError: 'nothing'"),
        ([f"{HERE}:Untyped"], "must be of NumPy's int32, float32 or bool"),
        ([f"{HERE}:Silent"], "has no arguments"),
        ([f"{HERE}:Boost", f"{HERE}:AlsoBoost"], "two processors have an argument 'boost_token'"),
    ],
)
def test_processors_that_cannot_be(names, said):
    with pytest.raises(ConfigError, match="--logits-processors") as raised:
        load_processors(names, VOCAB)
    assert said in str(raised.value)


def test_entry_points(monkeypatch):
    from importlib.metadata import EntryPoint

    point = EntryPoint("boost", f"{HERE}:Boost", "ingot.logits_processors")
    monkeypatch.setattr("engine.sampling.logits_processors.entry_points", lambda group: [point])
    assert load_processors(["boost"], VOCAB).num_fields == 3


@pytest.mark.parametrize(
    "value", [[1], {"a": "text"}, {"a": None}, {"a": float("nan")}, {"a": {"b": 1}}, {"a": [[1]]}]
)
def test_values_that_no_argument_has(value):
    with pytest.raises(RequestError) as raised:
        SamplingParams(extra_args=value)
    assert raised.value.param == "extra_args"
