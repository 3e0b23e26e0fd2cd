"""`use_beam_search` over HTTP, on the scripted engine that finds one token likelier than others."""

import asyncio
from typing import Any

import pytest

from engine.config import EngineConfig
from tests.serve.served import Serve, event_data, until

pytestmark = pytest.mark.anyio

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
PROMPTS: dict[str, dict[str, Any]] = {
    COMPLETIONS: {"prompt": "ab", "max_tokens": 3},
    CHAT: {"messages": [{"role": "user", "content": "a"}], "max_tokens": 3},
}


async def test_the_n_best_are_answered_the_best_first(serve: Serve) -> None:
    async with serve() as served:
        response = await served.complete(
            prompt="ab", max_tokens=2, n=3, use_beam_search=True, logprobs=1
        )
        choices = response.json()["choices"]
        # the engine says "a" with probability 1/2, "b" with 1/4, "c" with 1/8, always
        assert [choice["text"] for choice in choices] == ["aa", "ab", "ba"]
        assert [choice["finish_reason"] for choice in choices] == ["length"] * 3
        shown = choices[2]["logprobs"]
        assert shown["tokens"] == ["b", "a"]
        assert shown["token_logprobs"] == pytest.approx([-1.3862944, -0.6931472])
        assert shown["top_logprobs"][0] == pytest.approx({"a": -0.6931472, "b": -1.3862944})
        assert response.json()["usage"]["completion_tokens"] == 6
        assert served.core.num_prompt == 2
        assert not served.core.has_work


async def test_best_of_are_searched_and_n_answered(serve: Serve) -> None:
    async with serve() as served:
        body = {"prompt": ["ab", "xy"], "max_tokens": 2, "use_beam_search": True}
        wide = (await served.complete(n=4, **body)).json()["choices"]
        few = (await served.complete(n=2, best_of=4, **body)).json()["choices"]
        texts = [choice["text"] for choice in wide]
        assert texts[::4] == ["aa", "xx"]
        assert [choice["text"] for choice in few] == [*texts[:2], *texts[4:6]]
        assert [choice["index"] for choice in few] == [0, 1, 2, 3]


async def test_a_chat_is_searched_without_the_model_s_sampling_defaults(serve: Serve) -> None:
    """They have a temperature of 0.5, which a search does not take."""
    async with serve() as served:
        response = await served.chat(
            n=2,
            max_tokens=4,
            use_beam_search=True,
            length_penalty=0.5,
            early_stopping="never",
            return_token_ids=True,
        )
        assert response.status_code == 200, response.text
        choices = response.json()["choices"]
        assert len({tuple(choice["token_ids"]) for choice in choices}) == 2


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("stream", True), ("temperature", 0.7), ("top_p", 0.9), ("top_k", 5), ("min_p", 0.1),
        ("presence_penalty", 1), ("frequency_penalty", 1), ("repetition_penalty", 1.1),
        ("stop", "x"), ("stop_token_ids", [3]), ("bad_words", ["x"]), ("min_tokens", 1),
        ("prompt_logprobs", 1), ("logit_bias", {"3": 1}), ("allowed_token_ids", [3]),
        ("n", 20), ("n", 100), ("best_of", 20), ("best_of", 1), ("best_of", 100), ("best_of", "3"),
        ("structured_outputs", {"regex": "a+"}), ("response_format", {"type": "json_object"}),
        ("length_penalty", 11), ("length_penalty", "long"), ("early_stopping", "soon"),
    ],
)  # fmt: skip
async def test_what_a_search_cannot_do_is_named(
    serve: Serve, path: str, param: str, value: Any
) -> None:
    async with serve() as served:
        body = {**PROMPTS[path], "n": 2, "use_beam_search": True}
        response = await served.post(path, **{**body, param: value})
        assert response.status_code == 400, response.text
        assert response.json()["error"]["param"] == param
        assert not served.core.added
        assert (await served.post(path, **body)).status_code == 200


@pytest.mark.parametrize(
    "extra",
    [
        {"temperature": 0}, {"temperature": 1}, {"top_p": 1, "top_k": -1, "min_p": 0},
        {"seed": 4}, {"stop": []}, {"stream": False}, {"best_of": None, "length_penalty": None},
    ],
)  # fmt: skip
async def test_what_changes_nothing_is_taken(serve: Serve, extra: dict[str, Any]) -> None:
    async with serve() as served:
        response = await served.complete(prompt="ab", max_tokens=2, use_beam_search=True, **extra)
        assert response.json()["choices"][0]["text"] == "aa"


async def test_echo_with_logprobs_is_refused_and_echo_is_not(serve: Serve) -> None:
    async with serve() as served:
        body = {"prompt": "ab", "max_tokens": 2, "use_beam_search": True, "echo": True}
        assert (await served.complete(**body)).json()["choices"][0]["text"] == "abaa"
        response = await served.complete(logprobs=1, **body)
        assert response.json()["error"]["param"] == "echo"


async def test_neighbours_stream_while_a_search_runs(serve: Serve) -> None:
    async with serve(config=EngineConfig(max_num_seqs=2)) as served:
        searched, streamed = await asyncio.gather(
            served.complete(prompt="ab", max_tokens=8, n=4, use_beam_search=True),
            served.complete(prompt="xyz", max_tokens=8, stream=True),
        )
        text = "".join(e["choices"][0]["text"] for e in event_data(streamed.text)[:-1])
        assert text == "xyzxyzxy"
        assert searched.json()["choices"][0]["text"] == "a" * 8


async def test_a_client_that_leaves_takes_its_beams_along(serve: Serve) -> None:
    async with serve() as served:
        served.core.step_seconds = 0.001
        task = asyncio.create_task(
            served.complete(prompt="ab", max_tokens=100, n=4, use_beam_search=True)
        )
        await until(lambda: len(served.core.added) >= 9)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: not served.core.has_work)
        assert served.core.aborted
        assert (await served.complete(prompt="ab", max_tokens=2)).json()["choices"]
