"""A budget of reasoning: it ends where it is due, in every way that a request can run."""

import json

import pytest

from engine.errors import RequestError
from engine.messages import AddRequest
from engine.reasoning.thinking import Thinking, ThinkingBudget
from engine.reasoning.thoughts import ThoughtMarks
from engine.sampling.params import SamplingParams
from engine.sampling.state import pack_bits
from tests.engine.conftest import Text, few_programs, make_core
from tests.engine.grammar.conftest import SETTINGS, narrow, source, tokenizer, vocabulary

__all__ = ["narrow", "source", "tokenizer", "vocabulary"]
PROMPT = [5, 6, 7]
LENGTH = 24


@pytest.fixture(scope="module")
def engine(narrow):
    """Steps are launched ahead of what is read, and decode two tokens where they can."""
    with pytest.MonkeyPatch.context() as patch:
        few_programs(patch)
        core = make_core(narrow, **SETTINGS, num_scheduler_steps=4)
        core.wait_for_programs()
    yield core
    assert core.stats.num_compiles_after_warmup == 0
    core.close()


@pytest.fixture(scope="module")
def budget(tokenizer):
    """`budget(5)`: of a reply that begins within reasoning; its end is several tokens."""
    end = tokenizer.encode("</think>", add_special_tokens=False)
    assert len(end) > 1

    def make(max_tokens: int, **marks) -> ThinkingBudget:
        marks = ThoughtMarks(begin="<think>", ends=("</think>",), **{"is_open": True, **marks})
        return ThinkingBudget(max_tokens=max_tokens, end_token_ids=end, marks=marks)

    return make


def run(engine, *requests) -> list[Text]:
    texts = [Text() for _ in requests]
    for number, options in enumerate(requests):
        fields = {n: options.pop(n) for n in ("thinking", "grammar") if n in options}
        prompt = options.pop("prompt", PROMPT)
        params = SamplingParams(
            **{"temperature": 0, "max_tokens": LENGTH, "ignore_eos": True, **options}
        )
        engine.add(
            AddRequest(request_id=number, prompt_token_ids=prompt, params=params, **fields)
        )  # fmt: skip
    while engine.has_work:
        for delta in engine.step().deltas:
            texts[delta.request_id].add(delta)
    return texts


@pytest.mark.parametrize("tokens", [0, 1, 2, 7])
def test_the_end_comes_after_exactly_so_many_tokens(engine, budget, tokens):
    """What follows is what the model says to a prompt that holds all of it."""
    limit = budget(tokens)
    [free] = run(engine, {})
    [text] = run(engine, {"thinking": limit})
    head = free.ids[:tokens] + limit.end_token_ids
    [rest] = run(engine, {"prompt": PROMPT + head, "max_tokens": LENGTH - len(head)})
    assert text.ids == head + rest.ids
    assert text.finish_reason == "length"


def test_neighbours_and_those_who_end_in_time_are_as_without(engine, budget, tokenizer):
    free = [text.ids for text in run(engine, {}, {"seed": 3, "temperature": 1.0}, {"seed": 4})]
    late = budget(LENGTH)
    texts = run(
        engine,
        {"thinking": budget(3)},
        {"seed": 3, "temperature": 1.0},
        {"thinking": late},
    )
    assert texts[1].ids == free[1]
    assert texts[2].ids == free[0]
    closed = budget(0, is_open=False)  # no reasoning begins, so there is none to end
    assert run(engine, {"thinking": closed})[0].ids == free[0]


def test_reasoning_that_the_reply_itself_begins(engine, budget, tokenizer):
    """It counts from the mark on."""
    begin = tokenizer.encode("<think>", add_special_tokens=False)
    limit = budget(2, is_open=False)
    allowed = {"allowed_token_ids": begin}  # it can write little else
    texts = run(engine, *({"thinking": limit, "seed": s, "temperature": 1.0, "max_tokens": 60,
                           **allowed} for s in range(4)))  # fmt: skip
    for text in texts:
        said = tokenizer.decode(text.ids)
        if said.startswith("<think>"):
            assert "</think>" in said
        else:
            assert set(text.ids) <= set(begin)


def test_log_probabilities_allowed_tokens_and_penalties(engine, budget):
    """The forced tokens' log-probabilities are the model's own; what is allowed is so again."""
    limit = budget(4)
    allowed = list(range(50, 90))
    [text] = run(
        engine,
        {
            "thinking": limit, "logprobs": 2, "allowed_token_ids": allowed,
            "presence_penalty": 0.5, "temperature": 1.0, "seed": 5,
        },
    )  # fmt: skip
    end = limit.end_token_ids
    assert text.ids[4 : 4 + len(end)] == end
    assert set(text.ids[:4] + text.ids[4 + len(end) :]) <= set(allowed)
    assert [each.token_ids[0] for each in text.logprobs] == text.ids
    assert all(-30 < each.logprobs[0] < 0 for each in text.logprobs)
    assert len(text.ids) == LENGTH


def test_what_is_allowed_is_sent_again_once(engine, budget, monkeypatch):
    """And the forced tokens one by one; the other steps of the row send nothing."""
    sent = []

    def counted(ids, vocab_size):
        sent.append(list(ids))
        return pack_bits(ids, vocab_size)

    monkeypatch.setattr("engine.sampling.row_masks.pack_bits", counted)
    limit, allowed = budget(4), list(range(50, 90))
    run(engine, {"thinking": limit, "allowed_token_ids": allowed})
    assert sent == [*([token] for token in limit.end_token_ids), allowed]


def test_a_window_is_no_longer_than_any_row_may_go_on(engine, budget):
    """A step of two turns for rows that may take one would be padding by half."""
    limit = budget(4)
    before = engine.stats.padded_tokens, engine.stats.scheduled_tokens
    # four fill both programs
    run(engine, *({"thinking": limit, "prompt": [5] * 8} for _ in range(4)))
    padded, scheduled = engine.stats.padded_tokens, engine.stats.scheduled_tokens
    assert padded - before[0] == scheduled - before[1]


def test_a_grammar_takes_over_after_the_end(engine, budget, source, tokenizer):
    city = {
        "type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"],
        "additionalProperties": False,
    }  # fmt: skip
    thought = {"type": "tag", "begin": "", "content": {"type": "any_text"}, "end": "</think>"}
    whole = {
        "type": "sequence",
        "elements": [thought, {"type": "json_schema", "json_schema": city}],
    }
    made = source(structural_tag={"format": whole})
    limit = budget(6)
    for options in ({}, {"logprobs": 0}):
        texts = run(engine, *(
            {"thinking": limit, "grammar": made, "seed": seed, "temperature": 1.0, **options,
             "max_tokens": 60, "ignore_eos": False} for seed in range(3)
        ))  # fmt: skip
        for text in texts:
            thoughts, answer = tokenizer.decode(text.ids).split("</think>")
            json.loads(answer)
            assert text.finish_reason == "stop"
            end = 6 + len(limit.end_token_ids)
            assert text.ids[6:end] == limit.end_token_ids or len(thoughts) < 6


def test_preempted_requests_keep_their_budget(engine, budget):
    """There are pages for half of what these are: each is forced where it is due all the same."""
    before = engine.stats.num_preemptions
    limits = [budget(9), budget(150), budget(200), budget(60)]
    texts = run(
        engine, *({"max_tokens": 240, "thinking": limit, "seed": 1} for limit in limits)
    )  # fmt: skip
    assert engine.stats.num_preemptions > before
    [free] = run(engine, {"max_tokens": 240})
    for text, limit in zip(texts, limits, strict=True):
        end = limit.max_tokens + len(limit.end_token_ids)
        assert text.ids[:end] == free.ids[: limit.max_tokens] + limit.end_token_ids
        assert len(text.ids) == 240


def test_a_stop_token_among_the_forced_ends_the_request(engine, budget):
    limit = budget(2)
    stop = limit.end_token_ids[-1]
    [text] = run(engine, {"thinking": limit, "stop_token_ids": [stop]})
    assert text.ids[2:] == limit.end_token_ids
    assert (text.finish_reason, text.stop_token_id) == ("stop", stop)


def test_an_end_that_has_begun_is_completed(vocabulary, tokenizer, budget):
    limit = budget(3)
    end = limit.end_token_ids
    thinking = Thinking(limit, vocabulary.token_bytes, len(PROMPT))
    known = [*PROMPT, 60, 61, end[0]]
    assert thinking.most_ahead(known, 0) == 1
    assert thinking.forced(known, 0) == end[1]
    assert thinking.forced([*known, end[1]], 0) == (end[2] if len(end) > 2 else None)


def test_rows_wait_only_before_their_budget_could_be_passed(vocabulary, budget):
    thinking = Thinking(budget(5), vocabulary.token_bytes, len(PROMPT))
    assert [thinking.most_ahead(PROMPT, in_flight) for in_flight in (0, 1, 4, 5)] == [5, 4, 1, 0]
    ended = Thinking(budget(5, is_open=False), vocabulary.token_bytes, len(PROMPT))
    assert ended.most_ahead([*PROMPT, 60], 0) > 1000


def test_a_budget_without_an_end_is_refused(engine, budget):
    params = SamplingParams()
    nothing = ThinkingBudget(max_tokens=1, end_token_ids=[], marks=budget(1).marks)
    with pytest.raises(RequestError, match="No token ends"):
        engine.add(
            AddRequest(request_id=0, prompt_token_ids=[1], params=params, thinking=nothing)
        )  # fmt: skip
