"""/generate: SGLang's names for what the completions API does."""

import itertools
import threading
from typing import Any

import pytest

from engine.config import EngineConfig
from serve.generation.logprobs import MANY_POSITIONS
from serve.native.generate_view import GenerateView
from tests.serve.served import Serve, event_data

pytestmark = pytest.mark.anyio


async def test_ids_in_and_out(serve: Serve) -> None:
    async with serve() as served:
        response = await served.post(
            "/generate",
            input_ids=[5, 6, 7],
            sampling_params={"max_new_tokens": 4, "temperature": 0},
            return_logprob=True,
            top_logprobs_num=2,
            rid="mine",
        )
    body = response.json()
    assert body["output_ids"] == [5, 6, 7, 5]
    info = body["meta_info"]
    assert (info["prompt_tokens"], info["completion_tokens"], info["id"]) == (3, 4, "mine")
    assert info["finish_reason"] == {"type": "length", "length": 4}
    assert [entry[1] for entry in info["output_token_logprobs"]] == [5, 6, 7, 5]
    assert [len(entry) for entry in info["output_top_logprobs"]] == [2] * 4


async def test_lists_and_samples(serve: Serve) -> None:
    async with serve() as served:
        body = (
            await served.post(
                "/generate", text=["ab", "c"], sampling_params={"n": 2, "max_new_tokens": 2}
            )
        ).json()
        one = (await served.post("/generate", text=["ab"])).json()
    assert [each["text"] for each in body] == ["ab", "ab", "cc", "cc"]
    assert len(one) == 1 and one[0]["meta_info"]["completion_tokens"] == 126


async def test_prompts_are_shown_as_ids(serve: Serve) -> None:
    asked = {"text": ["ab", "c"], "sampling_params": {"max_new_tokens": 2}}
    async with serve() as served:
        shown = (await served.post("/generate", **asked, return_prompt_token_ids=True)).json()
        plain = (await served.post("/generate", **asked)).json()
    assert [len(each["prompt_token_ids"]) for each in shown] == [2, 1]
    assert all("prompt_token_ids" not in each for each in plain)


async def test_a_stream_repeats_what_it_said(serve: Serve) -> None:
    async with serve() as served:
        response = await served.post(
            "/generate",
            text="abc",
            stream=True,
            sampling_params={"max_new_tokens": 9, "stop": "ca", "sampling_seed": 3},
        )
    *chunks, done = event_data(response.text)
    texts = [chunk["text"] for chunk in chunks]
    assert done == "[DONE]" and texts[-1] == "ab"
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert chunks[-1]["meta_info"]["finish_reason"] == {"type": "stop", "matched": "ca"}


async def test_several_are_streamed_by_their_index(serve: Serve) -> None:
    asked = {"text": ["ab", "c"], "sampling_params": {"n": 2, "max_new_tokens": 3}}
    async with serve() as served:
        whole = (await served.post("/generate", **asked)).json()
        *chunks, done = event_data((await served.post("/generate", **asked, stream=True)).text)
    last = {chunk["index"]: chunk["text"] for chunk in chunks}
    assert done == "[DONE]" and not any("index" in each for each in whole)
    assert [last[index] for index in range(4)] == [each["text"] for each in whole]


async def test_each_prompt_may_have_options_of_its_own(serve: Serve) -> None:
    options = [
        {"max_new_tokens": 1, "temperature": 0},
        {"max_new_tokens": 3, "custom_params": {}, "beam_width": 1},
    ]
    async with serve() as served:
        body = await served.post("/generate", input_ids=[[97], [98]], sampling_params=options)
        first, second = served.core.added
    assert [len(each["output_ids"]) for each in body.json()] == [1, 3]
    assert (first.params.temperature, second.params.temperature) == (0, 0.5)


@pytest.mark.parametrize("stream", [False, True])
async def test_prompts_are_scored_from_a_token_on(serve: Serve, stream: bool) -> None:
    asked = {
        "text": "abc", "return_logprob": True, "logprob_start_len": 1, "top_logprobs_num": 2,
        "return_text_in_logprobs": True, "sampling_params": {"max_new_tokens": 2, "n": 2},
        "stream": stream,
    }  # fmt: skip
    async with serve() as served:
        answer = await served.post("/generate", **asked)
    body = event_data(answer.text)[:-1][-2:] if stream else answer.json()
    for each in body:
        info = each["meta_info"]
        (nothing, _, b), (value, _, c) = info["input_token_logprobs"]
        assert nothing is None and (b, c) == ("b", "c") and value == pytest.approx(-0.693, abs=1e-3)
        nothing, top = info["input_top_logprobs"]
        assert nothing is None and [text for _, _, text in top] == ["c", "d"]
        assert [text for _, _, text in info["output_token_logprobs"]] == ["a", "b"]


async def test_tokens_may_be_named_to_be_scored(serve: Serve) -> None:
    async with serve() as served:
        answer = await served.post(
            "/generate", input_ids=[7, 8], return_logprob=True, token_ids_logprob=[9, 7],
            logprob_start_len=-1, sampling_params={"max_new_tokens": 2},
        )  # fmt: skip
    info = answer.json()["meta_info"]
    half = pytest.approx(-0.693, abs=1e-3)
    assert info["output_token_ids_logprobs"] == [
        [[-9.0, 9, None], [half, 7, None]], [[-9.0, 9, None], [-7.0, 7, None]],
    ]  # fmt: skip
    assert "input_token_logprobs" not in info and "output_top_logprobs" not in info


@pytest.mark.parametrize(("fields", "param"), [
    ({}, "text"),
    ({"text": "a", "input_ids": [1]}, "text"),
    ({"text": []}, "text"),
    ({"input_ids": []}, "input_ids"),
    ({"text": "a", "top_logprobs_num": 1}, "top_logprobs_num"),
    ({"text": "a", "logprob_start_len": 0}, "logprob_start_len"),
    ({"text": "a", "token_ids_logprob": [1]}, "token_ids_logprob"),
    ({"text": "a", "return_text_in_logprobs": True}, "return_text_in_logprobs"),
    ({"text": "a", "return_logprob": True, "logprob_start_len": 1}, "logprob_start_len"),
    ({"text": "a", "return_logprob": True, "logprob_start_len": -2}, "logprob_start_len"),
    ({"text": "a", "return_logprob": True, "token_ids_logprob": [999]}, "token_ids_logprob"),
    ({"text": "a", "return_logprob": True, "token_ids_logprob": [1], "top_logprobs_num": 1},
     "token_ids_logprob"),
    ({"text": "a", "return_logprob": True, "token_ids_logprob": [1], "logprob_start_len": 0},
     "logprob_start_len"),
    ({"text": "a", "return_logprob": True, "top_logprobs_num": 99}, "top_logprobs_num"),
    ({"text": "a", "sampling_params": [{}]}, "sampling_params"),
    ({"text": ["a", "b"], "sampling_params": [{}]}, "sampling_params"),
    ({"text": ["a", "b"], "sampling_params": [{"n": 2}, {}]}, "sampling_params"),
    ({"text": ["a"] * 600, "sampling_params": {"n": 2}}, "n"),
    ({"text": "a", "sampling_params": {"temperature": -1}}, "temperature"),
    ({"text": "a", "sampling_params": {"beam_width": 2}}, "sampling_params"),
    ({"text": "a", "image_data": "x"}, "image_data"),
    ({"text": "a", "rid": ""}, "rid"), ({"text": "a", "rid": "x" * 257}, "rid"),
])  # fmt: skip
async def test_what_is_refused(serve: Serve, fields: dict[str, Any], param: str) -> None:
    async with serve() as served:
        response = await served.post("/generate", **fields)
    assert response.status_code == 400 and response.json()["error"]["param"] == param


@pytest.mark.parametrize("stream", [False, True])
async def test_scores_of_a_long_prompt_are_written_while_others_are_served(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    threads: set[int] = set()
    scores = GenerateView._prompt_scores

    def watched(*given: Any) -> Any:
        threads.add(threading.get_ident())
        return scores(*given)

    monkeypatch.setattr(GenerateView, "_prompt_scores", watched)
    asked = {"return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 2}
    async with serve(config=EngineConfig(max_model_len=4000)) as served:
        for length in (MANY_POSITIONS + 2, 20):
            threads.clear()
            options = {"max_new_tokens": 2, "temperature": 0}
            answer = await served.post(
                "/generate", input_ids=[7] * length, sampling_params=options, stream=stream, **asked
            )
            body = event_data(answer.text)[0] if stream else answer.json()
            assert len(body["meta_info"]["input_top_logprobs"]) == length
            assert (threading.get_ident() in threads) == (length == 20)
