"""return_hidden_states over HTTP: the scripted core's state of token t is t, t, t, t."""

from typing import Any

import pytest

from engine.config import EngineConfig
from tests.fake_engine import WIDTH
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio
CONFIG = EngineConfig(enable_return_hidden_states=True)


def state(token: int) -> list[float]:
    return [float(token)] * WIDTH


async def test_a_choice_has_the_state_of_its_last_token(serve: Serve) -> None:
    async with serve(config=CONFIG) as served:
        wanted: dict[str, Any] = {"return_hidden_states": True, "max_tokens": 5}
        body = (await served.complete(prompt=["abc", "de"], n=2, **wanted)).json()
        chat = (await served.chat("Hi", **wanted)).json()
        one = (await served.complete(prompt="abc", **{**wanted, "max_tokens": 1})).json()
        last = (await served.chat("Hi", **{**wanted, "return_hidden_states": "last"})).json()
        without = (await served.complete(prompt="abc")).json()
    assert [each["hidden_states"] for each in body["choices"]] == [state(6)] * 2 + [state(5)] * 2
    prompt = chat["usage"]["prompt_tokens"]
    assert chat["choices"][0]["hidden_states"] == state(prompt + 3)
    assert one["choices"][0]["hidden_states"] == state(2)
    assert last["choices"] == chat["choices"]  # SGLang's name of the same
    assert "hidden_states" not in without["choices"][0]


async def test_states_behind_a_stop_string_do_not_count(serve: Serve) -> None:
    async with serve(config=CONFIG) as served:
        wanted: dict[str, Any] = {"return_hidden_states": True, "max_tokens": 50, "stop": "ca"}
        body = (await served.complete(prompt="abc", **wanted)).json()
        params = {"max_new_tokens": 50, "stop": "ca"}
        whole = await served.post(
            "/generate", text="abc", return_hidden_states=True, sampling_params=params
        )
    tokens = body["usage"]["completion_tokens"]
    assert body["choices"][0]["hidden_states"] == state(2 + tokens - 1)
    assert len(whole.json()["meta_info"]["hidden_states"]) == tokens


async def test_generate_gives_the_prompts_and_each_tokens(serve: Serve) -> None:
    async with serve(config=CONFIG) as served:
        asked = {"text": ["abc", "d"], "sampling_params": {"max_new_tokens": 3}}
        body = (await served.post("/generate", **asked, return_hidden_states=True)).json()
        without = (await served.post("/generate", text="abc")).json()
    assert [each["meta_info"]["hidden_states"] for each in body] == [
        [[state(0), state(1), state(2)], state(3), state(4)],
        [[state(0)], state(1), state(2)],
    ]
    assert "hidden_states" not in without["meta_info"]


async def test_what_does_not_go_with_states(serve: Serve) -> None:
    stream, beams = {"stream": True}, {"use_beam_search": True, "n": 2}
    async with serve(config=CONFIG) as served:
        answers = [
            await served.complete(prompt="a", return_hidden_states=True, **stream),
            await served.complete(prompt="a", return_hidden_states=True, **beams),
            await served.chat(return_hidden_states=True, **stream),
            await served.post("/generate", text="a", return_hidden_states=True, **stream),
            await served.complete(prompt="a", return_hidden_states="all"),
        ]
    async with serve() as served:
        answers.append(await served.complete(prompt="a", return_hidden_states=True))
        assert "--enable-return-hidden-states" in answers[-1].json()["error"]["message"]
        assert (await served.complete(prompt="a", return_hidden_states=False)).status_code == 200
    for answer in answers:
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "return_hidden_states"
