"""Steps that are started before the last was read, and windows of several: the same tokens.

`ahead` starts up to eight decode steps at once and checks every token that it takes from a slot;
`plain` starts a step when the one before it is known.
"""

from contextlib import contextmanager

import numpy as np
import pytest

import engine.packing
from engine.sampling.params import SamplingParams
from tests.engine.checked_step import checked_step
from tests.engine.conftest import VOCAB, few_programs, make_core, run

ROWS = 64


@pytest.fixture(scope="module", autouse=True)
def a_program_for_each_number_of_turns():
    with pytest.MonkeyPatch.context() as patch:
        few_programs(patch)
        yield


@contextmanager
def checked_core(folder, **settings):
    """An engine whose steps are checked, with all programs compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.compiling.lowering.step", checked_step)
        engine = make_core(folder, **settings)
        engine.wait_for_programs()
    try:
        assert not engine._runner.programs._failures
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="module")
def ahead(tiny_folder):
    settings = {"max_num_seqs": ROWS, "max_num_batched_tokens": ROWS, "num_scheduler_steps": 8}
    with checked_core(tiny_folder, **settings) as engine:
        yield engine


@pytest.fixture(scope="module")
def plain(tiny_folder):
    engine = make_core(
        tiny_folder, max_num_seqs=ROWS, max_num_batched_tokens=ROWS, async_scheduling=False
    )
    engine.wait_for_programs()
    yield engine
    engine.close()


def prompts(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCAB, rng.integers(1, 40)).tolist() for _ in range(count)]


def said(texts):
    return [(t.ids, t.finish_reason, t.stop_token_id, [p.token_ids for p in t.logprobs])
            for t in texts]  # fmt: skip


OPTIONS = {
    "greedy": {},
    "ends at different places": [{"max_tokens": n % 13 + 1} for n in range(ROWS)],
    "seeded": [{"temperature": 1.0, "top_p": 0.9, "top_k": n % 7, "seed": n} for n in range(ROWS)],
    "penalties": {"repetition_penalty": 1.5, "frequency_penalty": 0.4, "presence_penalty": 0.2},
    "logprobs": [{"logprobs": n % 3} for n in range(ROWS)],
    "stop ids": {"temperature": 1.0, "seed": 5, "stop_token_ids": list(range(3, VOCAB, 9))},
    "least": {"temperature": 1.0, "seed": 6, "stop_token_ids": [*range(3, 60)], "min_tokens": 6},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_the_same_tokens(ahead, plain, options):
    each = options if isinstance(options, list) else [options] * ROWS
    params = [SamplingParams(**{"temperature": 0, "max_tokens": 21, **one}) for one in each]
    batch, before = prompts(ROWS), (ahead.stats.num_steps, plain.stats.num_steps)
    together = said(run(plain, batch, params))
    assert said(run(ahead, batch, params)) == together
    steps = [e.stats.num_steps - b for e, b in zip((ahead, plain), before, strict=True)]
    assert steps[0] < steps[1] - 4, "no window was used"
    assert said(run(ahead, batch, params, steps_between=1)) == together
    for number in range(3):
        assert said(run(ahead, [batch[number]], params[number])) == [together[number]]
        assert said(run(plain, [batch[number]], params[number])) == [together[number]]


def test_the_context_is_filled_to_its_end(ahead):
    (text,) = run(ahead, [[5, 6, 7]], max_tokens=None, ignore_eos=True)
    assert len(text.ids) + 3 == ahead.info.max_model_len and text.finish_reason == "length"


def test_preempted_rows_go_on_as_they_were(tiny_folder, plain):
    with checked_core(tiny_folder, num_gpu_blocks_override=9 + 1, num_scheduler_steps=4) as small:
        for penalty in (1.0, 1.8):
            options = {"max_tokens": 60, "repetition_penalty": penalty}
            texts, before = run(small, prompts(6), **options), small.stats.num_preemptions
            assert before > 0
            assert small.stats.num_free_pages == small.stats.num_pages
            assert said(texts) == said(run(plain, prompts(6), **options))


def section(packed, shape, name):
    """A view of one section of a packed step."""
    return packed[engine.packing.sections(shape)[name]]


def test_a_token_from_the_wrong_slot_is_noticed(ahead, monkeypatch):
    """Two rows of different lengths take each other's token."""
    pack = engine.packing.pack

    def swapped(plan, shape, columns):
        packed = pack(plan, shape, columns)
        if len(plan.decoding) == 2:
            slot = section(packed, shape, "slot")
            slot[:2] = slot[1::-1].copy()
        return packed

    monkeypatch.setattr("engine.runner.pack", swapped)
    texts = run(ahead, [[5], [6, 7, 8]], max_tokens=8, ignore_eos=True)
    assert "error" in (texts[0].finish_reason, texts[1].finish_reason)


def test_a_token_is_taken_once(ahead, monkeypatch):
    """A row that is told to take its last token again finds none."""
    pack = engine.packing.pack
    again = []

    def behind(plan, shape, columns):
        packed = pack(plan, shape, columns)
        if plan.decoding and not again:
            again.append(True)
            section(packed, shape, "logit_target")[:] = 3  # it samples nothing
        return packed

    monkeypatch.setattr("engine.runner.pack", behind)
    (text,) = run(ahead, [[5]], max_tokens=9, ignore_eos=True)
    assert again and text.finish_reason == "error"
