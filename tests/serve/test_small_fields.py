"""Fields that name or show something: request_id, rid, return_prompt_text, logprob_token_ids."""

import asyncio
from typing import Any

import openai
import pytest

from tests.serve.served import Serve, event_data

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "chat_id", "id"),
    [
        ({"request_id": "mine"}, "chatcmpl-mine", "cmpl-mine"),
        ({"rid": "mine"}, "mine", "mine"),
    ],
)
async def test_a_request_may_name_its_response(
    serve: Serve, stream: bool, fields: dict[str, str], chat_id: str, id: str
) -> None:
    """Two of one name at a time do not meet: inside they have names of their own."""
    async with serve() as served:
        answers = await asyncio.gather(
            *(served.chat("Hi", stream=stream, **fields) for _ in range(2)),
            *(served.complete(prompt="a", stream=stream, n=2, **fields) for _ in range(2)),
        )
    for answer, expected in zip(answers, [chat_id] * 2 + [id] * 2, strict=True):
        said = event_data(answer.text)[:-1] if stream else [answer.json()]
        assert {each["id"] for each in said} == {expected}
        assert "mine" not in answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"request_id": ""}, "request_id"), ({"request_id": 5}, "request_id"),
        ({"rid": "x" * 257}, "rid"), ({"rid": ["a"]}, "rid"),
        ({"rid": "a", "request_id": "b"}, "rid"), ({"truncation_side": "right"}, "truncation_side"),
        ({"return_prompt_text": 1}, "return_prompt_text"),
        ({"spaces_between_special_tokens": "no"}, "spaces_between_special_tokens"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named(serve: Serve, fields: dict[str, Any], param: str) -> None:
    async with serve() as served:
        response = await served.chat("Hi", **fields)
    assert response.status_code == 400 and response.json()["error"]["param"] == param


async def test_the_prompt_is_shown_as_the_template_wrote_it(serve: Serve) -> None:
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    async with serve() as served:
        client = openai.AsyncOpenAI(base_url="http://test/v1", api_key="x", http_client=served.http)
        given: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
        answer = await client.chat.completions.create(
            **given, n=2, extra_body={"return_prompt_text": True}
        )
        stream = await client.chat.completions.create(
            **given, n=2, stream=True, extra_body={"return_prompt_text": True}
        )
        chunks = [chunk.to_dict() async for chunk in stream]
        silent = await served.chat("Hi", return_prompt_text=False)
    assert answer.to_dict()["prompt_text"] == prompt
    assert [chunk.get("prompt_text") for chunk in chunks] == [prompt] + [None] * (len(chunks) - 1)
    assert "prompt_text" not in silent.json()


async def test_special_tokens_may_stand_close(serve: Serve) -> None:
    """This tokenizer puts no spaces anywhere, so that nothing changes."""
    async with serve() as served:
        for spaces in (False, True):
            answer = await served.complete(
                prompt=[256, 256, 97], max_tokens=3, skip_special_tokens=False,
                spaces_between_special_tokens=spaces,
            )  # fmt: skip
            text = answer.json()["choices"][0]["text"]
            assert text.startswith("<|im_start|><|im_start|>")


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_of_named_tokens(serve: Serve, stream: bool) -> None:
    """The core says that token i has log-probability -i, but for the one it chose."""
    named = {"logprob_token_ids": [7, 98, 3], "stream": stream, "max_tokens": 2, "n": 2}
    named["return_tokens_as_token_ids"] = True  # some are halves of characters, all shown as one
    async with serve() as served:
        completion = await served.complete(prompt=[98, 99], logprobs=3, **named)
        chat = await served.chat("Hi", logprobs=True, **named)
    said = event_data(completion.text)[:-1] if stream else [completion.json()]
    mine = [c["logprobs"] for each in said for c in each["choices"] if c["index"] == 1]
    tops = [top for each in mine for top in each["top_logprobs"]]
    chosen = pytest.approx(-0.693, abs=1e-3)
    others = {"token_id:7": -7.0, "token_id:3": -3.0}
    assert tops == [
        {"token_id:98": chosen, **others},
        {"token_id:99": chosen, "token_id:98": -98.0, **others},
    ]
    said = event_data(chat.text)[:-1] if stream else [chat.json()]
    entries = [
        entry
        for each in said
        for choice in each["choices"]
        if choice["index"] == 1 and choice["logprobs"]
        for entry in choice["logprobs"]["content"]
    ]
    for entry in entries:
        shown = [(top["token"], top["logprob"]) for top in entry["top_logprobs"]]
        assert shown == [("token_id:7", -7.0), ("token_id:98", -98.0), ("token_id:3", -3.0)]
    assert len(entries) == 2


async def test_an_echoed_prompt_shows_its_likeliest_beside_named_tokens(serve: Serve) -> None:
    asked = {"prompt": [98, 99], "max_tokens": 1, "echo": True, "logprobs": 2}
    asked["return_tokens_as_token_ids"] = True
    async with serve() as served:
        plain, named = [
            (await served.complete(**asked, **more)).json()["choices"][0]["logprobs"]
            for more in ({}, {"logprob_token_ids": [7]})
        ]
    assert [*map(list, plain["top_logprobs"][1:])] == [
        ["token_id:99", "token_id:100"], ["token_id:98", "token_id:99"],
    ]  # fmt: skip
    assert named["top_logprobs"][:2] == plain["top_logprobs"][:2]
    assert [*named["top_logprobs"][2]] == ["token_id:98", "token_id:7"]


async def test_named_tokens_need_logprobs(serve: Serve) -> None:
    async with serve() as served:
        for response in (
            await served.complete(prompt="a", logprob_token_ids=[1]),
            await served.chat("a", logprob_token_ids=[1]),
            await served.chat("a", logprobs=True, logprob_token_ids=[1, 1]),
            await served.chat("a", logprobs=True, logprob_token_ids=[300]),
            await served.chat("a", logprobs=True, logprob_token_ids=[1] * 200),
        ):
            assert response.status_code == 400
            assert response.json()["error"]["param"] == "logprob_token_ids"
