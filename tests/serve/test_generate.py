"""/generate: SGLang's names for what the completions API does."""

import itertools
from typing import Any

import pytest

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


@pytest.mark.parametrize(("fields", "param"), [
    ({}, "text"),
    ({"text": "a", "input_ids": [1]}, "text"),
    ({"text": []}, "text"),
    ({"input_ids": []}, "input_ids"),
    ({"text": ["a", "b"], "stream": True}, "stream"),
    ({"text": "a", "top_logprobs_num": 1}, "top_logprobs_num"),
    ({"text": "a", "sampling_params": {"temperature": -1}}, "temperature"),
    ({"text": "a", "sampling_params": {"beam_width": 2}}, "sampling_params"),
    ({"text": "a", "image_data": "x"}, "image_data"),
    ({"text": "a", "rid": ""}, "rid"), ({"text": "a", "rid": "x" * 257}, "rid"),
])  # fmt: skip
async def test_what_is_refused(serve: Serve, fields: dict[str, Any], param: str) -> None:
    async with serve() as served:
        response = await served.post("/generate", **fields)
    assert response.status_code == 400 and response.json()["error"]["param"] == param
