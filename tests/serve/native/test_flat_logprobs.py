"""The likeliest tokens as arrays: the same numbers as in lists."""

from base64 import b64decode
from typing import Any

import numpy as np
import pytest

from serve.native.flat_logprobs import Flat
from tests.serve.served import Serve, event_data

pytestmark = pytest.mark.anyio
INPUT, OUTPUT = "return_flat_raw_top_logprobs", "return_flat_raw_output_top_logprobs"
B64 = "return_flat_raw_top_logprobs_b64"
SCORED: dict[str, Any] = {
    "text": "abcd", "return_logprob": True, "logprob_start_len": 1, "top_logprobs_num": 2,
    "sampling_params": {"max_new_tokens": 3},
}  # fmt: skip


def listed(side: str, meta: dict[str, Any]) -> list[Any]:
    """The lists of lists that flat fields stand for."""
    name = f"{side}_top_logprobs"
    if f"{name}_val_flat" in meta:
        values, tokens = (np.asarray(meta[f"{name}_{kind}_flat"]) for kind in ("val", "idx"))
    else:
        values, tokens = (
            np.frombuffer(
                b64decode(meta[f"{name}_{kind}_flat_b64"]), meta[f"{name}_{kind}_flat_b64_dtype"]
            )
            for kind in ("val", "idx")
        )
        assert (values.dtype, tokens.dtype) == (np.float32, np.int32)
    shape = meta[f"{name}_shape"]
    pairs = zip(values.reshape(shape).tolist(), tokens.reshape(shape).tolist(), strict=True)
    rows = [[[v, t] for v, t in zip(*pair, strict=True)] for pair in pairs]
    return [None] * meta[f"{name}_null_prefix"] + rows


@pytest.mark.parametrize("as_base64", [False, True])
async def test_generate_has_them_of_the_prompt_and_of_the_answer(
    serve: Serve, as_base64: bool
) -> None:
    async with serve() as served:
        plain = (await served.post("/generate", **SCORED)).json()["meta_info"]
        flat = {INPUT: True, OUTPUT: True, B64: as_base64}
        meta = (await served.post("/generate", **SCORED, **flat)).json()["meta_info"]
    for side, rows in (("input", 3), ("output", 3)):
        want = [each and [entry[:2] for entry in each] for each in plain[f"{side}_top_logprobs"]]
        assert len(want) == rows
        for told, known in zip(listed(side, meta), want, strict=True):
            assert told == known or np.allclose(told, known, rtol=1e-6)
        assert f"{side}_top_logprobs" not in meta
    assert meta["output_token_logprobs"] == plain["output_token_logprobs"]
    assert meta["output_token_logprobs_length"] == len(meta["output_token_logprobs"])


async def test_those_of_the_prompt_can_be_streamed(serve: Serve) -> None:
    async with serve() as served:
        whole = (await served.post("/generate", **SCORED, **{INPUT: True})).json()["meta_info"]
        stream = await served.post("/generate", **SCORED, **{INPUT: True}, stream=True)
    last = event_data(stream.text)[-2]["meta_info"]
    assert listed("input", last) == listed("input", whole)
    assert last["output_top_logprobs"] == whole["output_top_logprobs"]


async def test_chats_have_them_in_meta_info_and_nowhere_else(serve: Serve) -> None:
    asked = {"logprobs": True, "top_logprobs": 2, "max_tokens": 3, "return_meta_info": True}
    async with serve() as served:
        plain = (await served.chat("Hi", **asked)).json()["choices"][0]
        flat = (await served.chat("Hi", **asked, **{OUTPUT: True})).json()["choices"][0]
        text = (await served.chat("Hi", **asked, **{OUTPUT: True, B64: False})).json()
    want = [[entry[:2] for entry in each] for each in plain["meta_info"]["output_top_logprobs"]]
    assert np.allclose(listed("output", flat["meta_info"]), want, rtol=1e-6)
    assert "output_top_logprobs_val_flat_b64" in flat["meta_info"]
    assert listed("output", text["choices"][0]["meta_info"]) == want
    for shown in flat["logprobs"]["content"]:
        assert shown["top_logprobs"] == []
    assert [len(each["top_logprobs"]) for each in plain["logprobs"]["content"]] == [2, 2, 2]


def test_of_nothing_there_are_no_rows() -> None:
    found = Flat(base64=True).written("output", [], 2, 0)
    assert found["output_top_logprobs_shape"] == [0, 2]
    assert found["output_top_logprobs_val_flat_b64"] == ""


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/generate", {"top_logprobs_num": 0, OUTPUT: True}, OUTPUT),
        ("/generate", {"return_logprob": False, "top_logprobs_num": 0, OUTPUT: True}, OUTPUT),
        ("/generate", {OUTPUT: True, "stream": True}, OUTPUT),
        ("/generate", {INPUT: True, "logprob_start_len": -1}, INPUT),
        ("/generate", {B64: True}, B64),
        ("/v1/chat/completions", {OUTPUT: True, "logprobs": True, "top_logprobs": 2}, OUTPUT),
        ("/v1/chat/completions", {OUTPUT: True, "return_meta_info": True}, OUTPUT),
        ("/v1/chat/completions", {INPUT: True}, INPUT),
        ("/v1/completions", {OUTPUT: True}, OUTPUT),
    ],
)  # fmt: skip
async def test_what_cannot_be_told_is_refused(
    serve: Serve, path: str, body: dict[str, Any], param: str
) -> None:
    base = {"/generate": SCORED, "/v1/completions": {"prompt": "a"}}.get(
        path, {"messages": [{"role": "user", "content": "a"}]}
    )
    start = {"logprob_start_len": -1} if body.get("return_logprob") is False else {}
    async with serve() as served:
        answer = await served.post(path, **{**base, **body, **start})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
