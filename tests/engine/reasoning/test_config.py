"""Budgets of reasoning in Python: the strings around it, and what `LLM` makes of them."""

import pytest

from engine import LLM, ReasoningConfig, SamplingParams
from engine.errors import ConfigError, RequestError
from engine.reasoning.config import THINK, reasoning_config
from engine.reasoning.thoughts import Thoughts

MARKS = ReasoningConfig(reasoning_start_str="<think>", reasoning_end_str="</think>")
PROMPT = "Once upon a time<think>"
LENGTH = 24


@pytest.fixture(scope="module")
def llm():
    with LLM("demo", reasoning_config=MARKS, max_num_seqs=4, max_num_batched_tokens=64) as model:
        yield model


def params(budget: int | None, **more) -> SamplingParams:
    return SamplingParams(
        temperature=0, max_tokens=LENGTH, ignore_eos=True, thinking_token_budget=budget, **more
    )


def test_reasoning_ends_where_its_budget_is_used_up(llm):
    """In rows side by side; the prompt opened it, as text or as ids."""
    ids = llm.get_tokenizer().encode(PROMPT)
    end = llm.get_tokenizer().encode("</think>", add_special_tokens=False)
    free, none, five, same = (
        each.outputs[0]
        for each in llm.generate(
            [PROMPT, PROMPT, PROMPT, ids], [params(None), params(0), params(5), params(5)]
        )
    )
    assert "</think>" not in free.text
    assert none.token_ids[: len(end)] == end and none.text.startswith("</think>")
    assert five.token_ids == [*free.token_ids[:5], *end, *five.token_ids[5 + len(end) :]]
    assert same.token_ids == five.token_ids and len(five.token_ids) == LENGTH


def test_a_prompt_that_opens_nothing_and_no_limit(llm):
    plain = "Once upon a time"
    free, limited, unlimited = (
        each.outputs[0].text
        for each in llm.generate([plain] * 3, [params(None), params(0), params(-1)])
    )
    assert free == limited == unlimited


@pytest.mark.parametrize(
    ("end", "ends"),
    [
        ("That will do.</think>", True), ("\n</think>\n\n", True), ("</think>", True),
        ("That will do.", False), ("</think> Well:", False),
    ],
)  # fmt: skip
def test_the_mark_alone_ends_reasoning_too(llm, end, ends):
    """Else a budget would be forced upon the answer."""
    config = ReasoningConfig(reasoning_start_str="<think>", reasoning_end_str=end)
    budget = config.budget(9, llm.get_tokenizer().encode(PROMPT), llm.get_tokenizer())
    thoughts = Thoughts(budget.marks, lambda token: b"hm,</think>Rome"[token : token + 1])
    thoughts.extend(range(15))
    assert thoughts.ended == ends and thoughts.num_tokens == (3 if ends else 15)
    assert llm.get_tokenizer().decode(budget.end_token_ids) == end


@pytest.mark.parametrize("budget", [-2, 1.5, True, 2**64])
def test_wrong_budgets(budget):
    with pytest.raises(RequestError) as refused:
        params(budget)
    assert refused.value.param == "thinking_token_budget"


def test_the_marks_are_given_or_in_the_template():
    given = {"reasoning_start_str": "[T]", "reasoning_end_str": "[/T]"}
    assert reasoning_config(given, []) == ReasoningConfig(**given)
    assert reasoning_config(None, ["{{ x.split('</think>') }}"]) == THINK
    assert reasoning_config(None, ["{{ x }}"]) is None
    for wrong in ({}, 5, {"reasoning_start_str": "a"}, {**given, "reasoning_end_str": " "}):
        with pytest.raises(ConfigError, match="reasoning_config"):
            reasoning_config(wrong, [])


def test_without_marks_a_budget_is_refused(llm):
    llm._loop._reasoning, kept = None, llm._loop._reasoning
    try:
        with pytest.raises(RequestError, match="reasoning_config") as refused:
            llm.generate(PROMPT, params(5))
    finally:
        llm._loop._reasoning = kept
    assert refused.value.param == "thinking_token_budget"
