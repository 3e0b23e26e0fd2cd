"""A model that gives what is no number ends the requests to which it does, and no others."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from tests.engine.conftest import few_programs, make_core, run

WRONG = 7  # the token whose embedding is no number
OPTIONS = {
    "greedy": {},
    "drawn": {"temperature": 1.0, "seed": 3, "top_p": 0.9},
    "scored": {"logprobs": 2, "prompt_logprobs": 1},
    "edited": {"presence_penalty": 0.5, "logit_bias": {4: 1.0}, "min_tokens": 2},
}


@pytest.fixture(scope="module", params=[1, 4], ids=["step by step", "four at once"])
def broken(request, tiny_folder):
    """An engine with one token whose embedding holds a NaN."""
    with pytest.MonkeyPatch.context() as patch:
        few_programs(patch)
        core = make_core(tiny_folder, num_scheduler_steps=request.param)
        core.wait_for_programs()
    runner = core._runner
    number, _ = core.model.layout.place["embedding"]
    table = np.array(runner.leaves[number])
    table[WRONG, 5] = math.nan
    runner.leaves = (*runner.leaves[:number], jnp.asarray(table), *runner.leaves[number + 1 :])
    yield core
    core.close()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_request_without_numbers_ends_and_its_neighbours_go_on(broken, options):
    good, bad = [[5, 6, 8, 9], [11, 12]], [5, 6, WRONG, 9]
    options = {**options, "allowed_token_ids": [token for token in range(40) if token != WRONG]}
    alone = [run(broken, [prompt], **options)[0] for prompt in good]
    before = broken.stats.num_corrupted
    first, failed, last = run(broken, [good[0], bad, good[1]], **options)
    assert failed.finish_reason == "error" and failed.ids == []
    assert [first.ids, last.ids] == [text.ids for text in alone]
    assert broken.stats.num_corrupted == before + 1
    assert broken.stats.num_free_pages == broken.stats.num_pages


def test_tokens_before_the_first_that_is_no_number_are_told(broken):
    """The model chooses the wrong token, behind which nothing is a number."""
    [text] = run(broken, [[5, 6, 8]], logit_bias={WRONG: 60.0})
    assert text.finish_reason == "error" and text.ids == [WRONG]
