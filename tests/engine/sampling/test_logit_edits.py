"""Bans, biases and penalties, one at a time; mixes are in test_sampling.py."""

import numpy as np
import pytest

from engine.sampling.params import SamplingParams
from engine.sampling.state import init_slots
from tests.engine.sampling_batch import choose, enter
from tests.engine.sampling_reference import Sequence

V, R = 12, 2
LOGITS = np.linspace(1.2, 0.1, V, dtype=np.float32)  # 0 is the likeliest, then 1, 2, ...


def greedy(*, logits=LOGITS, prompt=(0,), output=(), stop_ids=(), bad_words=(), **options) -> int:
    params = SamplingParams(temperature=0, bad_words=["x"] if bad_words else None, **options)
    sequence = Sequence(params, list(prompt), list(output), list(stop_ids), list(bad_words))
    state = enter(init_slots(R, V), 1, sequence)
    return int(choose(np.asarray(logits)[None], [sequence], [1], state).tokens[0])


@pytest.mark.parametrize(
    ("options", "token"),
    [
        ({"allowed_token_ids": [9, 4]}, 4),
        ({"logit_bias": {7: 2.0}}, 7),
        ({"logit_bias": {0: -100.0, 1: -100.0}}, 2),
        ({"bad_words": [[0], [1, 2]]}, 1),
        ({"bad_words": [[3, 0], [3, 4, 0]], "output": [3, 4]}, 1),
        ({"bad_words": [[3, 4, 0]], "output": [4, 3]}, 0),
        ({"bad_words": [[3, 4, 0]], "prompt": [3, 4]}, 0),  # only generated tokens count
        ({"min_tokens": 2, "stop_ids": [0, 1], "output": [5]}, 2),
        ({"min_tokens": 2, "stop_ids": [0, 1], "output": [5, 5]}, 0),
        ({"presence_penalty": 0.15, "output": [0]}, 1),
        ({"presence_penalty": 0.15, "prompt": [0]}, 0),
        ({"frequency_penalty": 0.15, "output": [0, 0, 0, 1]}, 2),
        ({"repetition_penalty": 1.5, "prompt": [0], "output": [1]}, 2),
        ({"presence_penalty": -1.5, "output": [11]}, 11),
        ({"logit_bias": {5: 100.0}, "allowed_token_ids": [6]}, 6),
    ],
)
def test_the_likeliest_token_after_one_option(options, token) -> None:
    assert greedy(**options) == token


def test_repetition_makes_negative_logits_more_negative() -> None:
    assert greedy(logits=LOGITS - 2, repetition_penalty=2.0, prompt=[0]) == 1


def test_where_bans_leave_nothing_the_allowed_tokens_win() -> None:
    assert greedy(allowed_token_ids=[3, 8], bad_words=[[3], [8]]) == 3
    assert greedy(allowed_token_ids=[8], min_tokens=5, stop_ids=[8]) == 8
    assert greedy(min_tokens=1, stop_ids=list(range(V))) == 0
    assert greedy(logits=np.full(V, -np.inf, np.float32), allowed_token_ids=[8]) == 8
