"""Prompts in every form that is accepted, and the errors of the others."""

import pytest

from engine.errors import RequestError
from engine.prompts import Prompt, as_prompt, as_prompts
from engine.sampling.defaults import sampling_defaults
from models.errors import CheckpointError


def test_one_or_several():
    assert as_prompts("a") == [Prompt(text="a")] == as_prompts(["a"])
    assert as_prompts([1, 2]) == [Prompt(ids=[1, 2])] == as_prompts([[1, 2]])
    assert as_prompts([{"prompt_token_ids": [1]}, "b"]) == [Prompt(ids=[1]), Prompt(text="b")]
    assert as_prompts([]) == []


@pytest.mark.parametrize(
    "prompt",
    [None, 1, b"ab", [True], ["a", 1], {}, {"prompt": 3}, {"prompt": "a", "x": 1},
     {"prompt_token_ids": b"ab"}],
)  # fmt: skip
def test_anything_else_is_refused(prompt):
    with pytest.raises(RequestError) as caught:
        as_prompt(prompt)
    assert caught.value.param == "prompt"


@pytest.mark.parametrize("salt", [None, 5, "\ud800"])
def test_a_salt_is_a_text(salt):
    """Pages are named by it while a step of all requests is planned."""
    for prompt in ({"prompt": "a"}, {"prompt_embeds": [[0.5]]}):
        with pytest.raises(RequestError) as caught:
            as_prompt({**prompt, "cache_salt": salt})
        assert caught.value.param == "cache_salt"


def test_text_needs_a_tokenizer():
    with pytest.raises(RequestError, match="no tokenizer"):
        Prompt(text="a").token_ids(None)
    assert Prompt(ids=(1, 2)).token_ids(None) == [1, 2]


def test_recommended_sampling():
    raw = {"temperature": 0.6, "top_k": 20, "eos_token_id": 2, "top_p": None}
    assert sampling_defaults(raw) == {"temperature": 0.6, "top_k": 20}
    assert sampling_defaults({"do_sample": False, "temperature": 0.6}) == {"temperature": 0.0}
    with pytest.raises(CheckpointError, match=r"generation_config\.json: temperature"):
        sampling_defaults({"temperature": -1})
