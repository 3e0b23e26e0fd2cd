"""/v1/chat/completions/batch: several conversations at once."""

from typing import Any

import pytest

from tests.serve.reply.test_tools import CALL, ROOM, THOUGHT, TOOL, settings
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio
PATH = "/v1/chat/completions/batch"


def said(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


async def test_the_answers_are_those_that_each_gets_alone(serve: Serve) -> None:
    options: dict[str, Any] = {"n": 2, "max_tokens": 60, "logprobs": True, "return_token_ids": True}
    replies = (f"{THOUGHT}Yes.", "No.")
    async with serve(settings(), ROOM) as served:
        body = (await served.post(PATH, messages=said(*replies), **options)).json()
        alone = [(await served.chat(reply, **options)).json() for reply in replies]
    choices = [choice for one in alone for choice in one["choices"]]
    assert [each.pop("index") for each in body["choices"]] == [0, 1, 2, 3]
    assert body["choices"] == [{k: v for k, v in c.items() if k != "index"} for c in choices]
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert body["usage"][name] == sum(one["usage"][name] for one in alone)
    thoughts = [one["usage"]["completion_tokens_details"]["reasoning_tokens"] for one in alone]
    assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": sum(thoughts)}
    assert "prompt_token_ids" not in body and body["object"] == "chat.completion"


async def test_they_run_side_by_side_and_may_call(serve: Serve) -> None:
    async with serve(settings(), ROOM) as served:
        answer = await served.post(PATH, messages=said(CALL, "No."), tools=[TOOL])
        steps = served.core.num_steps
    first, second = answer.json()["choices"]
    assert first["finish_reason"] == "tool_calls" and second["message"]["content"] == "No."
    assert steps == len(CALL) + 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [[]]}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}]}, "messages"),
        ({"messages": said("a") * 600, "n": 2}, "messages"),
        ({"messages": said("a"), "stream": True}, "stream"),
        ({"messages": said("a"), "prompt_logprobs": 1}, "prompt_logprobs"),
        ({"messages": said("a"), "use_beam_search": True}, "use_beam_search"),
        ({"messages": said("a"), "input_ids": [5]}, "input_ids"),
        ({"messages": said("a", "b"), "top_logprobs": 2}, "top_logprobs"),
        ({"messages": said("a", "b"), "temperature": -1}, "temperature"),
        ({"messages": said("a", "b" * 200)}, "messages"),
    ],
)
async def test_what_is_wrong_is_named(serve: Serve, fields: dict[str, Any], param: str) -> None:
    async with serve() as served:
        answer = await served.post(PATH, **fields)
        assert answer.status_code == 400 and answer.json()["error"]["param"] == param
        assert not served.core.added
