"""Answers of a server that are none."""

import pytest

from engine import Remote
from engine.errors import EngineError
from engine.language.backend import Write

USAGE = {"prompt_tokens": 2, "completion_tokens": 1}
CHOICE = {"text": "a", "finish_reason": "stop"}


@pytest.mark.parametrize("reply", [
    {}, {"choices": [], "usage": USAGE}, {"choices": [CHOICE], "usage": None},
    {"choices": [CHOICE], "usage": {**USAGE, "prompt_tokens_details": [7]}},
])  # fmt: skip
def test_every_answer_comes_whatever_its_shape(monkeypatch, reply):
    with Remote("http://nowhere:1").requests() as requests:
        monkeypatch.setattr(requests, "_post", lambda *_: reply)
        requests.start(1, Write("ab", {}, chat=False, marked=None))
        turns = (requests.turn() for _ in range(50))
        [(key, answer)] = next(filter(None, turns), [(None, None)])
    assert key == 1 and isinstance(answer, EngineError)
    assert "http://nowhere:1 answered in another shape" in str(answer)
