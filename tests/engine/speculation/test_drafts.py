"""Steps with drafts: the same tokens as without, fewer steps, and nothing left behind.

`drafting` guesses as it is told: what the request will say, which it knows from `plain`, with
mistakes in places that are drawn.
"""

import random

import pytest

from engine.errors import ConfigError, RequestError
from engine.messages import AddRequest
from engine.sampling.params import SamplingParams
from engine.speculation.config import SpeculativeConfig
from tests.engine.conftest import VOCAB, few_programs, make_core, run
from tests.engine.test_pipeline import checked_core, prompts, said

ROWS = 16
MOST = 5


class Oracle:
    """Knows what each prompt's answer is, and is wrong one time in four."""

    most = MOST

    def __init__(self, answers, prompt):
        self._told, self._draw = prompt + answers[tuple(prompt)], random.Random(len(prompt))

    def propose(self, token_ids, num_in_flight, count):
        first = len(token_ids) + num_in_flight
        guess = self._told[first : first + self._draw.randint(0, count)]
        return [t if self._draw.randrange(4) else (t + 1) % VOCAB for t in guess]

    def judge(self, num_accepted): ...


@pytest.fixture(scope="module", autouse=True)
def few():
    with pytest.MonkeyPatch.context() as patch:
        few_programs(patch)
        yield


@pytest.fixture(scope="module")
def drafting(tiny_folder):
    settings = {"max_num_seqs": ROWS, "max_num_batched_tokens": 64, "num_scheduler_steps": 4}
    config = SpeculativeConfig(num_speculative_tokens=MOST)
    with checked_core(tiny_folder, **settings, speculative_config=config) as engine:
        yield engine


@pytest.fixture(scope="module")
def plain(tiny_folder):
    engine = make_core(tiny_folder, max_num_seqs=ROWS, max_num_batched_tokens=64)
    engine.wait_for_programs()
    yield engine
    engine.close()


def taught(monkeypatch, batch, texts):
    """Let guesses come from what was said before."""
    answers = {tuple(p): t.ids for p, t in zip(batch, texts, strict=True)}
    monkeypatch.setattr(
        "engine.core.make_drafter",
        lambda config, model, message: Oracle(answers, message.prompt_token_ids),
    )


OPTIONS = {
    "greedy": {},
    "ends at different places": [{"max_tokens": n % 13 + 1} for n in range(ROWS)],
    "seeded": [{"temperature": 1.0, "top_p": 0.9, "top_k": n % 7, "seed": n} for n in range(ROWS)],
    "logprobs": [{"logprobs": n % 3} for n in range(ROWS)],
    "stop ids": {"temperature": 1.0, "seed": 5, "stop_token_ids": list(range(3, VOCAB, 9))},
    "least": {"temperature": 1.0, "seed": 6, "stop_token_ids": [*range(3, 60)], "min_tokens": 6},
    "bias": {"temperature": 1.0, "seed": 8, "logit_bias": {5: 3.0, 7: -100.0}},
    "prompt scored": {"prompt_logprobs": 1},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("rows, between", [(1, 0), (4, 0), (ROWS, 0), (6, 2)])
def test_the_same_tokens(drafting, plain, monkeypatch, options, rows, between):
    each = options if isinstance(options, list) else [options] * ROWS
    params = [SamplingParams(**{"temperature": 0, "max_tokens": 30, **one}) for one in each][-rows:]
    batch = prompts(ROWS)[-rows:]
    texts = run(plain, batch, params)
    taught(monkeypatch, batch, texts)
    drafts = drafting.stats.num_drafts
    again = run(drafting, batch, params, steps_between=between)
    assert said(again) == said(texts)
    assert [len(t.prompt_logprobs) for t in again] == [len(t.prompt_logprobs) for t in texts]
    for text, known in zip(again, texts, strict=True):
        for place, other in zip(text.logprobs, known.logprobs, strict=True):
            assert place.logprobs == pytest.approx(other.logprobs, abs=1e-4)
            assert place.rank == other.rank
    assert drafting.stats.num_drafts > drafts or rows == ROWS  # no row is left until some end
    assert drafting.stats.num_free_pages == drafting.stats.num_pages
    assert not drafting.stats.num_compiles_after_warmup


def test_pages_found_after_drafts_hold_what_they_should(drafting, plain, monkeypatch):
    """An answer that was guessed, wrongly here and there, is the beginning of the next prompt."""
    drafting.reset_prefix_cache()
    batch = prompts(3, seed=7)
    texts = run(plain, batch, max_tokens=50, ignore_eos=True)
    taught(monkeypatch, batch, texts)
    run(drafting, batch, max_tokens=50, ignore_eos=True)
    monkeypatch.undo()
    turns = [p + t.ids + [9] for p, t in zip(batch, texts, strict=True)]
    hits = drafting.stats.prefix_cache_hits
    assert said(run(drafting, turns, logprobs=2)) == said(run(plain, turns, logprobs=2))
    assert drafting.stats.prefix_cache_hits - hits >= sum(len(t) - 2 for t in turns) // 16 * 16


def test_guesses_that_hold_save_steps_and_are_counted(drafting, plain):
    """What repeats itself is found without being told."""
    before, stats = drafting.stats.num_steps, drafting.stats
    drafts, tokens, places = stats.num_drafts, stats.num_draft_tokens, sum(stats.accepted_per_place)
    (text,) = run(drafting, [[5, 6, 7]], max_tokens=100, logit_bias={9: 100.0})
    assert text.ids == [9] * 100
    drafted, accepted = stats.num_draft_tokens - tokens, sum(stats.accepted_per_place) - places
    assert 60 < accepted <= drafted <= MOST * (stats.num_drafts - drafts)
    assert len(stats.accepted_per_place) <= MOST
    assert stats.num_steps - before < 30


def test_in_a_pool_that_is_too_small_rows_are_preempted_and_say_what_they_would(
    tiny_folder, plain, monkeypatch
):
    batch = prompts(6)
    texts = run(plain, batch, max_tokens=60)
    taught(monkeypatch, batch, texts)
    config = SpeculativeConfig(num_speculative_tokens=3)
    settings = {"max_num_seqs": 8, "num_gpu_blocks_override": 9 + 1, "speculative_config": config}
    with checked_core(tiny_folder, **settings) as small:
        again = run(small, batch, max_tokens=60)
        assert said(again) == said(texts)
        assert small.stats.num_preemptions > 0 and small.stats.num_drafts > 0
        assert small.stats.num_free_pages == small.stats.num_pages


def test_a_request_may_be_aborted_or_retracted_while_its_draft_is_computed(drafting, plain):
    expected = run(plain, [[4], [5, 6]], max_tokens=80, ignore_eos=True)
    params = SamplingParams(temperature=0, max_tokens=80, ignore_eos=True)
    for number, prompt in enumerate([[4], [5, 6]]):
        drafting.add(AddRequest(request_id=number, prompt_token_ids=prompt, params=params))
    said, before, retracted = {0: [], 1: []}, drafting.stats.num_drafts, 0
    while drafting.has_work:
        for delta in drafting.step().deltas:
            said[delta.request_id] += delta.new_token_ids
        drafted = drafting.stats.num_drafts - before
        if any(each.plan.drafts for each in drafting._launched):  # behind a step that was read
            drafting.freeze(retract=True)
            drafting.thaw()
            retracted += 1
        if drafted > 3:
            drafting.abort([0])
    assert said[1] == expected[1].ids and retracted
    assert 0 < len(said[0]) < 80 and said[0] == expected[0].ids[: len(said[0])]
    assert drafting.stats.num_free_pages == drafting.stats.num_pages


@pytest.mark.parametrize("options", [
    {"repetition_penalty": 1.2}, {"presence_penalty": 0.1}, {"frequency_penalty": 0.1},
])  # fmt: skip
def test_what_depends_on_all_tokens_before_is_not_guessed(drafting, plain, options):
    before = drafting.stats.num_drafts
    batch = [[5, 6, 7], [8, 8, 8]]
    assert said(run(drafting, batch, **options)) == said(run(plain, batch, **options))
    assert drafting.stats.num_drafts == before


PENALTIES = "prediction cannot be used with penalties or bad_words"


@pytest.mark.parametrize("said, sentence", [
    ({"params": SamplingParams(frequency_penalty=0.1)}, PENALTIES),
    ({"params": SamplingParams(bad_words=["a"]), "bad_word_ids": [[5]]}, PENALTIES),
    ({"times_from": 5}, "prediction cannot be used with times of speech"),
    ({"prediction_token_ids": [VOCAB]}, f"prediction holds token id {VOCAB}"),
])  # fmt: skip
def test_a_prediction_that_cannot_be_used_is_refused(plain, said, sentence):
    message = AddRequest(
        **{"request_id": 0, "prompt_token_ids": [5], "params": SamplingParams()}
        | {"prediction_token_ids": [6]} | said
    )  # fmt: skip
    with pytest.raises(RequestError, match=sentence) as caught:
        plain.add(message)
    assert caught.value.param == "prediction" and not plain.has_work


def test_an_answer_that_was_predicted_takes_fewer_steps(plain):
    """Without a setting; each guess is right here, and what is in flight is no guess."""
    (text,), before = run(plain, [[5, 6]], max_tokens=50, ignore_eos=True), plain.stats.num_steps
    drafted, params = 0, SamplingParams(temperature=0, max_tokens=50, ignore_eos=True)
    plain.add(AddRequest(
        request_id=0, prompt_token_ids=[5, 6], params=params, prediction_token_ids=text.ids,
    ))  # fmt: skip
    again = []
    while plain.has_work:
        for delta in plain.step().deltas:
            again += delta.new_token_ids
            assert delta.num_accepted == delta.num_drafted
            drafted += delta.num_drafted
    assert again == text.ids and drafted >= 40
    assert plain.stats.num_steps - before <= 2 + -(-50 // 8)


@pytest.mark.parametrize("rows", [ROWS // 2, ROWS // 2 + 1])
def test_where_most_rows_are_taken_nobody_is_guessed_for(drafting, rows):
    """Behind a step with drafts nothing is started, and all rows would wait for one."""
    before = drafting.stats.num_drafts
    batch = [[5, 6 + row] for row in range(rows)]
    run(drafting, batch, max_tokens=20, logit_bias={9: 100.0}, ignore_eos=True)
    assert (drafting.stats.num_drafts > before) == (rows <= ROWS // 2)


def test_drafts_need_rows(tiny_folder):
    with pytest.raises(ConfigError, match="--max-num-seqs 4 is not more"):
        make_core(
            tiny_folder,
            max_num_seqs=4,
            speculative_config=SpeculativeConfig(num_speculative_tokens=4),
        )


@pytest.mark.parametrize("settings, sentence", [
    ({"num_speculative_tokens": 0}, "num_speculative_tokens must be from 1 to 32, got 0"),
    ({"num_speculative_tokens": 33}, "from 1 to 32, got 33"),
    ({"prompt_lookup_min": 0}, "prompt_lookup_min must be at least 1"),
    ({"prompt_lookup_min": 4, "prompt_lookup_max": 3}, "got 4 and 3"),
    ({"prompt_lookup_max": 33}, "got 33 and 33"),
])  # fmt: skip
def test_numbers_out_of_range(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        SpeculativeConfig(**{"num_speculative_tokens": 3, **settings})


@pytest.mark.parametrize("given, lengths", [
    ({}, (2, 4)),
    ({"prompt_lookup_min": 3}, (3, 3)),
    ({"prompt_lookup_max": 5}, (5, 5)),
    ({"prompt_lookup_max": 5, "prompt_lookup_min": 1}, (1, 5)),
])  # fmt: skip
def test_how_many_tokens_are_looked_up(given, lengths):
    assert SpeculativeConfig(num_speculative_tokens=3, **given).lengths == lengths
