"""/inference/v1/generate: vLLM's token ids in and out."""

from typing import Any

import pytest

from tests.serve.served import Serve, event_data

pytestmark = pytest.mark.anyio
PATH = "/inference/v1/generate"


async def test_ids_go_in_and_come_out(serve: Serve) -> None:
    options = {"max_tokens": 4, "logprobs": 1, "prompt_logprobs": 0, "n": 2, "detokenize": False}
    async with serve() as served:
        answer = await served.post(
            PATH, token_ids=[5, 6, 7], sampling_params=options, model="tiny", request_id="mine"
        )
        [added, _] = served.core.added
    body = answer.json()
    assert added.prompt_token_ids == [5, 6, 7] and body["request_id"] == "mine"
    assert [(c["index"], c["token_ids"]) for c in body["choices"]] == [
        (0, [5, 6, 7, 5]), (1, [5, 6, 7, 5]),
    ]  # fmt: skip
    choice = body["choices"][1]
    assert choice["finish_reason"] == "length" and "text" not in answer.text
    scored = choice["logprobs"]["content"]
    assert [each["token"] for each in scored] == [f"token_id:{i}" for i in (5, 6, 7, 5)]
    assert [len(each["top_logprobs"]) for each in scored] == [1] * 4
    assert [None if p is None else [*p] for p in body["prompt_logprobs"]] == [None, ["6"], ["7"]]
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 11}


async def test_a_stream_adds_up_to_the_same(serve: Serve) -> None:
    asked: dict[str, Any] = {"token_ids": [5, 6], "sampling_params": {"max_tokens": 3}}
    async with serve() as served:
        whole = (await served.post(PATH, **asked)).json()
        usage = {"include_usage": True}
        streamed = await served.post(PATH, **asked, stream=True, stream_options=usage)
    *chunks, last, done = event_data(streamed.text)
    ids = [token for chunk in chunks for token in chunk["choices"][0]["token_ids"]]
    assert ids == whole["choices"][0]["token_ids"] and len(chunks) == 3 and done == "[DONE]"
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert last["choices"] == [] and last["usage"] == whole["usage"]
    assert not any("usage" in chunk for chunk in chunks)


async def test_what_is_not_said_is_what_the_context_has_room_for(serve: Serve) -> None:
    async with serve() as served:
        body = (await served.post(PATH, token_ids=[5], sampling_params={})).json()
        [added] = served.core.added
    assert body["usage"]["total_tokens"] == 128 and added.params.temperature == 0.5


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "token_ids"),
        ({"token_ids": []}, "token_ids"),
        ({"token_ids": [300]}, "token_ids"),
        ({"token_ids": "text"}, "token_ids"),
        ({"token_ids": [1], "sampling_params": {"temperature": -1}}, "temperature"),
        ({"token_ids": [1], "sampling_params": {"max_tokens": 999}}, "max_tokens"),
        ({"token_ids": [1], "sampling_params": {"temprature": 1}}, "sampling_params"),
        ({"token_ids": [1], "sampling_params": {"extra_args": {"a": "x"}}}, "extra_args"),
        ({"token_ids": [1], "stream": True, "sampling_params": {"prompt_logprobs": 1}},
         "prompt_logprobs"),
        ({"token_ids": [1], "features": {}}, "features"),
        ({"token_ids": [1], "kv_transfer_params": {"a": 1}}, "kv_transfer_params"),
        ({"token_ids": [1], "model": "nobody"}, "model"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named(serve: Serve, fields: dict[str, Any], param: str) -> None:
    async with serve() as served:
        answer = await served.post(PATH, **fields)
    error = answer.json()["error"]
    assert answer.status_code in (400, 404) and error["param"] == param
    assert param in error["message"] and "prompt must" not in error["message"]
