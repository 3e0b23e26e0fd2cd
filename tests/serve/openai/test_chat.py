"""/v1/chat/completions over a scripted core that repeats the rendered conversation.

The prompt begins with a special token, which is not shown, and "user"; so does each answer.
"""

from typing import Any

import pytest

from serve.settings import ServerSettings
from tests.serve.served import Serve, event_data

pytestmark = pytest.mark.anyio


async def test_a_conversation_is_answered_until_the_turn_ends(serve: Serve) -> None:
    async with serve() as served:
        response = await served.chat("Hi", model="tiny")
    body = response.json()
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "user\nHi", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
            "matched_stop": 257,
        }
    ]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_the_limit_has_two_names(serve: Serve, name: str) -> None:
    async with serve() as served:
        body = (await served.chat("Hi", **{name: 3})).json()
    assert body["choices"][0]["message"]["content"] == "us"  # the special token is the first
    assert body["choices"][0]["finish_reason"] == "length"


async def test_without_a_limit_the_rest_of_the_context_is_used(serve: Serve) -> None:
    async with serve() as served:
        body = (await served.chat("Hi", ignore_eos=True)).json()
    assert body["usage"]["total_tokens"] == 128


async def test_text_parts_are_joined_and_names_pass(serve: Serve) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    async with serve() as served:
        body = (
            await served.post(
                "/v1/chat/completions",
                messages=[{"role": "user", "content": parts, "name": "me", "tool_calls": None}],
            )
        ).json()
    assert body["choices"][0]["message"]["content"] == "user\none\ntwo"


async def test_the_final_message_can_be_continued(serve: Serve) -> None:
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "The ans"}]
    async with serve() as served:
        body = (
            await served.post(
                "/v1/chat/completions",
                messages=messages,
                continue_final_message=True,
                echo=True,
                return_token_ids=True,
                max_tokens=2,
            )
        ).json()
        ids = served.core.added[0].prompt_token_ids
    assert body["choices"][0]["message"]["content"] == "The ansu"
    assert body["prompt_token_ids"] == ids and body["choices"][0]["token_ids"] == ids[:2]
    assert ids[-1] != 257 and ids.count(256) == 2


async def test_logprobs_show_the_likeliest_and_their_bytes(serve: Serve) -> None:
    async with serve() as served:
        body = (await served.chat("Hi", max_tokens=2, logprobs=True, top_logprobs=2)).json()
    content = body["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in content] == ["<|im_start|>", "u"]
    assert content[1]["bytes"] == [ord("u")]
    assert [top["token"] for top in content[1]["top_logprobs"]] == ["u", "v"]
    assert content[1]["top_logprobs"][1]["logprob"] == pytest.approx(-1.386, abs=1e-3)


async def test_a_stream_begins_with_the_role_of_each_choice(serve: Serve) -> None:
    async with serve() as served:
        response = await served.chat(
            "Hi", n=2, stream=True, stream_options={"include_usage": True}, return_token_ids=True
        )
    *chunks, usage, done = event_data(response.text)
    assert done == "[DONE]" and usage["choices"] == []
    said: dict[int, list[dict[str, object]]] = {0: [], 1: []}
    for chunk in chunks:
        assert chunk["object"] == "chat.completion.chunk"
        [choice] = chunk["choices"]
        said[choice["index"]].append(choice)
    for choices in said.values():
        assert choices[0]["delta"] == {"role": "assistant", "content": ""}
        assert all("role" not in choice["delta"] for choice in choices[1:])  # type: ignore[operator]
        assert [c["finish_reason"] for c in choices] == [None] * (len(choices) - 1) + ["stop"]
        assert "".join(c["delta"]["content"] for c in choices) == "user\nHi"  # type: ignore[index]
    assert "prompt_token_ids" in chunks[0] and "prompt_token_ids" not in chunks[1]
    assert usage["usage"]["completion_tokens"] == 2 * 9


async def test_the_template_of_the_command_line_wins(serve: Serve) -> None:
    settings = ServerSettings(chat_template="{{ messages[0].content }}{{ suffix_text }}")
    async with serve(settings) as served:
        body = (
            await served.chat("Hi", max_tokens=4, chat_template_kwargs={"suffix_text": "!?"})
        ).json()
    assert body["choices"][0]["message"]["content"] == "Hi!?"


async def test_the_names_of_the_command_line_are_the_models(serve: Serve) -> None:
    async with serve(ServerSettings(served_model_names=("a", "b"))) as served:
        listed = (await served.http.get("/v1/models")).json()
        one = await served.http.get("/v1/models/b")
        missing = await served.http.get("/v1/models/tiny")
        answer = await served.chat("Hi", model="b", max_tokens=1)
        refused = await served.chat("Hi", model="tiny", max_tokens=1)
    assert [card["id"] for card in listed["data"]] == ["a", "b"]
    assert one.json()["max_model_len"] == 128
    assert answer.json()["model"] == "a"
    assert missing.status_code == refused.status_code == 404
    assert refused.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a" * 128}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a" * 9999}]}),
        ("/v1/completions", {"prompt": [5] * 128}),
        ("/v1/completions", {"prompt": "a" * 100, "max_tokens": 100}),
        ("/v1/responses", {"input": "a" * 128}),
    ],
)
async def test_what_the_context_cannot_hold_has_openais_code(
    serve: Serve, path: str, sent: dict[str, Any]
) -> None:
    async with serve() as served:
        error = (await served.post(path, **sent)).json()["error"]
        other = (await served.post(path, **{**sent, "top_p": 7})).json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "context_length_exceeded")
    assert other["code"] is None
