"""Watermarked texts: found by the key alone, unnoticed by neighbours, the same however they run."""

import numpy as np
import pytest

from engine import EngineConfig, GumbelWatermarkDetector, SamplingParams
from engine.config import make_config
from engine.errors import ConfigError, RequestError
from engine.messages import AddRequest
from engine.watermarking.config import WatermarkConfig
from tests.engine.conftest import few_programs, make_core, run

KEY = 2**64 - 59
PROMPT = [5, 6, 7]
MARK = WatermarkConfig(key=KEY, context_width=2)


@pytest.fixture(scope="module")
def engine(tiny_folder):
    """Its pages are those of two requests of 80 tokens; four preempt one another."""
    with pytest.MonkeyPatch.context() as patch:
        few_programs(patch)
        core = make_core(tiny_folder, watermark_config=MARK, num_gpu_blocks_override=13)
        core.wait_for_programs()
    yield core
    assert core.stats.num_compiles_after_warmup == 0
    core.close()


def drawn(**options) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 80, "ignore_eos": True, "seed": 3, **options})


def find(ids: list[int], key: int = KEY, width: int = 2):
    return GumbelWatermarkDetector(key, context_width=width).detect(ids)


def test_a_text_is_found_by_its_key_and_by_no_other(engine):
    marked, plain = run(engine, [PROMPT] * 2, [drawn(), drawn(watermarking=False)])
    assert find(marked.ids).p_value < 1e-9
    assert find(marked.ids).is_watermarked
    assert find(marked.ids[40:]).is_watermarked  # and a part of it
    assert not find(marked.ids, key=KEY - 1).is_watermarked
    assert not find(marked.ids, width=3).is_watermarked
    assert not find(plain.ids).is_watermarked


def test_seeds_give_different_answers_to_one_prompt(engine):
    first, second, again = run(engine, [PROMPT] * 3, [drawn(seed=s) for s in (1, 2, 1)])
    assert first.ids == again.ids
    assert first.ids != second.ids
    assert find(second.ids).is_watermarked


def test_those_that_were_preempted_have_the_same_tokens(engine):
    params = [drawn(seed=s, temperature=t, top_k=20) for s, t in ((1, 1.0), (2, 0.7), (3, 1.3))]
    alone = [run(engine, [PROMPT], [each])[0].ids for each in params]
    together = run(engine, [PROMPT] * 3, params)
    assert max(each.preemptions for each in together) > 0
    assert [each.ids for each in together] == alone


def test_neighbours_are_unharmed(engine, core):
    quiet = [drawn(seed=1, watermarking=False), drawn(temperature=0), drawn(watermarking=False)]
    beside = run(engine, [PROMPT] * 4, [*quiet, drawn(max_tokens=12)])
    without = run(core, [PROMPT] * 4, [*quiet, drawn(max_tokens=12)])
    assert [each.ids for each in beside[:3]] == [each.ids for each in without[:3]]
    assert beside[3].ids != without[3].ids


def test_what_cannot_be_watermarked_is_refused_by_name(engine, core):
    for where, params, said in (
        (core, drawn(watermarking=True), "--watermark-config"),
        (engine, drawn(watermarking=True, temperature=0), "temperature above 0"),
    ):
        with pytest.raises(RequestError, match=said) as raised:
            where.add(AddRequest(request_id=0, prompt_token_ids=PROMPT, params=params))
        assert raised.value.param == "watermarking"
        assert not where.has_work
    predicted = AddRequest(
        request_id=0, prompt_token_ids=PROMPT, params=drawn(), prediction_token_ids=[1, 2]
    )
    with pytest.raises(RequestError, match="prediction cannot be used with a watermark"):
        engine.add(predicted)


def test_other_texts_are_taken_for_watermarked_as_often_as_said():
    rng = np.random.default_rng(0)
    values = [find(rng.integers(0, 50, 60).tolist()).p_value for _ in range(400)]
    shares = [np.mean(np.array(values) <= share) for share in (0.05, 0.25, 0.5, 0.75)]
    np.testing.assert_allclose(shares, [0.05, 0.25, 0.5, 0.75], atol=0.07)


def test_repetitions_prove_nothing():
    once = [3, 1, 4, 1, 5]
    assert find(once * 40).num_scored_tokens == 5
    assert find([1, 2]).p_value == 1.0
    for wrong in ("text", [1, 2, -3], [2**31] * 4, [None]):
        with pytest.raises(RequestError, match="token_ids"):
            find(wrong)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"key": -1}, "key must be from 0"),
        ({"key": 2**64}, "key must be from 0|out of range|int"),
        ({}, "key"),
        ({"key": 1, "context_width": 0}, "context_width must be from 1 to 16"),
        ({"key": 1, "algorithm": "dual_key_gumbel"}, "must be 'gumbel'; got"),
        ({"key": 1, "prf": "philox"}, "[.]prf must be 'threefry'; got 'philox'"),
        ({"key": 1, "deduplicate_contexts": "all"}, "one of 'none', 'single_turn'; got"),
        ({"key": 1, "deduplicate_contexts_max_history": 0}, "at least 1, or null"),
        ({"key": 1, "alpha": 0.5}, "alpha"),
    ],
)
def test_settings_that_cannot_be(given, said):
    with pytest.raises(ConfigError, match=said) as raised:
        make_config(watermark_config=given)
    assert "watermark-config" in str(raised.value)


def test_the_key_is_not_shown():
    assert str(KEY) not in repr(EngineConfig(watermark_config=MARK))
