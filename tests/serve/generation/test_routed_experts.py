"""Routed experts over HTTP: the scripted core's token t takes the expert t, in both layers."""

import io
import json
from base64 import b64decode

import numpy as np
import pytest

from engine.config import EngineConfig
from tests.serve.served import Serve, event_data

pytestmark = pytest.mark.anyio
CONFIG = EngineConfig(enable_return_routed_experts=True)
START, ASKED = "routed_experts_prompt_start", "return_routed_experts"


def of_file(choice: dict) -> list[int]:
    """The tokens whose experts a choice of vLLM's has."""
    rows = np.load(io.BytesIO(b64decode(choice["routed_experts"])))
    assert rows.dtype == np.uint8 and rows.shape[1:] == (2, 1)
    assert (rows == rows[:, :1]).all()
    return rows[:, 0, 0].tolist()


def of_numbers(told: dict) -> list[int]:
    """Those of SGLang's `meta_info` and `sglext`."""
    rows = np.frombuffer(b64decode(told["routed_experts"]), np.int32)
    return rows.reshape(-1, 2)[:, 0].tolist()


async def test_choices_have_those_of_all_tokens_but_the_last(serve: Serve) -> None:
    async with serve(config=CONFIG) as served:
        wanted = {"max_tokens": 3}
        two = (await served.complete(prompt=["abc", "de"], n=2, **wanted)).json()
        chat = (await served.chat("Hi", **wanted)).json()
        later = (await served.chat("Hi", **wanted, **{START: 2})).json()
        sent = {"token_ids": [97, 98], "sampling_params": {**wanted, START: 1}}
        ids = (await served.post("/inference/v1/generate", **sent)).json()
        stopped = (await served.complete(prompt="abc", max_tokens=50, stop="ca")).json()
    assert [of_file(each) for each in two["choices"]] == [[*range(5)]] * 2 + [[*range(4)]] * 2
    tokens = chat["usage"]["total_tokens"] - 1
    assert of_file(chat["choices"][0]) == [*range(tokens)]
    assert of_file(later["choices"][0]) == [*range(2, tokens)]
    assert of_file(ids["choices"][0]) == [1, 2, 3]
    assert of_file(stopped["choices"][0]) == [*range(stopped["usage"]["total_tokens"] - 1)]


async def test_generate_has_them_where_it_is_asked(serve: Serve) -> None:
    async with serve(config=CONFIG) as served:
        asked = {"text": ["abc", "d"], "sampling_params": {"max_new_tokens": 3}, ASKED: True}
        body = (await served.post("/generate", **asked)).json()
        later = (await served.post("/generate", **asked, routed_experts_start_len=1)).json()
        without = (await served.post("/generate", text="abc")).json()
        stream = await served.post("/generate", **asked | {"text": "abc"}, stream=True)
    assert [of_numbers(each["meta_info"]) for each in body] == [[*range(5)], [*range(3)]]
    assert [of_numbers(each["meta_info"]) for each in later] == [[*range(1, 5)], [1, 2]]
    assert "routed_experts" not in without["meta_info"]
    events = [json.loads(line[6:]) for line in stream.text.split("\n\n") if "{" in line]
    assert ["routed_experts" in each["meta_info"] for each in events[:-1]] == [False] * 2
    assert of_numbers(events[-1]["meta_info"]) == [*range(5)]


async def test_openai_routes_have_them_in_sglext_where_it_is_asked(serve: Serve) -> None:
    """Of the first choice; of streams at the end."""
    asked = {"max_tokens": 3, ASKED: True}
    async with serve(config=CONFIG) as served:
        body = (await served.complete(prompt=["abc", "d"], n=2, **asked)).json()
        later = (await served.complete(prompt="abc", **asked, routed_experts_start_len=1)).json()
        stream = await served.complete(prompt="abc", **asked, stream=True)
        chat = (await served.chat("Hi", **asked)).json()
        chats = await served.chat("Hi", **asked, n=2, stream=True)
        without = (await served.chat("Hi", max_tokens=3)).json()
    assert of_numbers(body["sglext"]) == [*range(5)] == of_file(body["choices"][0])
    assert of_numbers(later["sglext"]) == [*range(1, 5)]
    tokens = [*range(chat["usage"]["total_tokens"] - 1)]
    assert of_numbers(chat["sglext"]) == of_file(chat["choices"][0]) == tokens
    assert "sglext" not in without
    for text, told in ((stream.text, [*range(5)]), (chats.text, tokens)):
        *chunks, last = event_data(text)[:-1]
        assert of_numbers(last["sglext"]) == told and last["choices"] == []
        assert not any("sglext" in each for each in chunks)
        assert not any("routed_experts" in choice for each in chunks for choice in each["choices"])


async def test_what_has_none(serve: Serve) -> None:
    """Streams of OpenAI's routes and beams, as in vLLM; what asks for more is refused by name."""
    async with serve(config=CONFIG) as served:
        stream = await served.complete(prompt="a", stream=True)
        beams = await served.complete(prompt="a", use_beam_search=True, n=2)
        refused = [
            (await served.complete(prompt="a", stream=True, **{START: 1}), START),
            (await served.complete(prompt="a", use_beam_search=True, n=2, **{START: 1}), START),
            (await served.complete(prompt="a", use_beam_search=True, n=2, **{ASKED: True}), ASKED),
            (await served.chat("a", routed_experts_start_len=1), "routed_experts_start_len"),
            (
                await served.chat("a", **{ASKED: True}, routed_experts_start_len=500),
                "routed_experts_start_len",
            ),
            (
                await served.chat("a", **{ASKED: True, START: 1}, routed_experts_start_len=1),
                "routed_experts_start_len",
            ),
            (
                await served.post(
                    "/v1/chat/completions/batch",
                    messages=[[{"role": "user", "content": "a"}]],
                    **{ASKED: True},
                ),
                ASKED,
            ),
            (await served.post("/v1/completions/render", prompt="a", **{ASKED: True}), ASKED),
            (await served.complete(prompt="a", **{START: 2}), START),
            (
                await served.post("/generate", text="a", routed_experts_start_len=1),
                "routed_experts_start_len",
            ),
        ]
    assert "routed_experts" not in stream.text and "routed_experts" not in beams.text
    async with serve() as served:
        refused += [
            (await served.complete(prompt="a", **{START: 1}), START),
            (await served.post("/generate", text="a", **{ASKED: True}), ASKED),
            (await served.chat("a", **{ASKED: True}), ASKED),
        ]
        assert "routed_experts" not in (await served.complete(prompt="a", **{START: 0})).text
    for answer, field in refused:
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    assert "use_beam_search" in refused[1][0].json()["error"]["message"]
    for answer, _ in refused[-3:]:
        assert "--enable-return-routed-experts" in answer.json()["error"]["message"]
