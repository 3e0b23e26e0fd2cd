"""What tokens were drawn among: read from log-probabilities of what is left to draw from."""

from math import inf, log
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.outputs import Logprob
from serve.native.sampling_mask import masks_told
from tests.serve.served import Serve, event_data

pytestmark = pytest.mark.anyio
CONFIG = EngineConfig(logprobs_mode="processed_logprobs")
MASK, MODE = "return_sampling_mask", "sampling_logprobs_mode"
FEW: dict[str, Any] = {"max_new_tokens": 2, "top_k": 3, "temperature": 1.0}
ASKED: dict[str, Any] = {"text": "ab", "sampling_params": FEW, MASK: True}


def masks(meta: dict[str, Any]) -> tuple[list[list[int]], list[Any]]:
    assert meta["output_token_sampling_mask_length"] == len(meta["output_token_sampling_mask"])
    return meta["output_token_sampling_mask"], meta["output_token_sampling_logprobs"]


def test_tokens_that_cannot_be_drawn_are_not_among_them() -> None:
    positions = [{7: Logprob(log(0.4)), 3: Logprob(log(0.6)), 9: Logprob(-inf)}, {1: Logprob(0.0)}]
    told = masks_told(positions, "selected", drawn=True)
    assert masks(told) == ([[7, 3], [1]], [log(0.4), 0.0])
    told = masks_told(positions, "support", drawn=True)
    assert masks(told) == ([[7, 3], [1]], [[log(0.4), log(0.6)], [0.0]])
    told = masks_told(positions, "support", drawn=False)
    assert masks(told) == ([[7], [1]], [[0.0], [0.0]])


async def test_generate_tells_them_beside_what_else_is_asked(serve: Serve) -> None:
    async with serve(config=CONFIG) as served:
        selected = (await served.post("/generate", **ASKED)).json()
        support = (await served.post("/generate", **ASKED, **{MODE: "support"})).json()
        scored = {"return_logprob": True, "top_logprobs_num": 2}
        both = (await served.post("/generate", **ASKED, **scored)).json()
        stream = await served.post("/generate", **ASKED, stream=True)
        cold = {"max_new_tokens": 2, "temperature": 0}
        greedy = (await served.post("/generate", **{**ASKED, "sampling_params": cold})).json()
        wanted = [message.params.logprobs for message in served.core.added]
    left, chosen = masks(selected["meta_info"])
    assert [each[0] for each in left] == selected["output_ids"] and chosen == [log(0.5)] * 2
    again, all_of = masks(support["meta_info"])
    assert again == left and [each[0] for each in all_of] == chosen
    assert [len(each) for each in all_of] == [len(each) for each in left] == [20, 20]
    assert masks(both["meta_info"])[0] == left
    assert [len(each) for each in both["meta_info"]["output_top_logprobs"]] == [2, 2]
    assert "output_token_logprobs" not in selected["meta_info"]
    assert masks(event_data(stream.text)[-2]["meta_info"])[0] == left
    assert masks(greedy["meta_info"]) == ([[each] for each in greedy["output_ids"]], [0.0, 0.0])
    assert wanted == [20] * 5


async def test_chats_tell_them_in_meta_info(serve: Serve) -> None:
    asked = {"max_tokens": 2, "top_k": 2, "temperature": 1, "return_meta_info": True, MASK: True}
    async with serve(config=CONFIG) as served:
        chat = (await served.chat("Hi", **asked, n=2)).json()["choices"]
        scored = (await served.chat("Hi", **asked, logprobs=True, top_logprobs=1)).json()
    for choice in chat:
        assert len(masks(choice["meta_info"])[0]) == 2 and choice["logprobs"] is None
    [shown] = scored["choices"]
    assert [len(each["top_logprobs"]) for each in shown["logprobs"]["content"]] == [1, 1]
    assert masks(shown["meta_info"])[0] == masks(chat[0]["meta_info"])[0]


@pytest.mark.parametrize(
    ("path", "fields", "param", "said"),
    [
        ("/generate", {"sampling_params": {"top_k": 21}}, MASK, "top_k from 1 to 20"),
        ("/generate", {"sampling_params": {}}, MASK, "got top_k"),
        ("/generate", {MASK: False, MODE: "support"}, MODE, "needs return_sampling_mask"),
        ("/generate", {MODE: "all"}, MODE, "selected"),
        (
            "/generate",
            {"return_logprob": True, "token_ids_logprob": [1], "sampling_params": {"top_k": 1}},
            MASK,
            "named",
        ),
        ("/v1/chat/completions", {"top_k": 2}, MASK, "return_meta_info"),
        ("/v1/completions", {"prompt": "a"}, MASK, "not"),
    ],
)
async def test_what_cannot_be_told_is_refused(
    serve: Serve, path: str, fields: dict[str, Any], param: str, said: str
) -> None:
    base: dict[str, Any] = {"/generate": {"text": "a"}, "/v1/completions": {}}.get(
        path, {"messages": [{"role": "user", "content": "a"}]}
    )
    async with serve(config=CONFIG) as served:
        error = (await served.post(path, **{**base, MASK: True, **fields})).json()["error"]
    assert error["param"] == param and said in error["message"], error


async def test_an_engine_that_cannot_say_it_is_named_by_its_setting(serve: Serve) -> None:
    async with serve() as served:
        error = (await served.post("/generate", **ASKED)).json()["error"]
    assert error["param"] == MASK and "--logprobs-mode processed_logprobs" in error["message"]
