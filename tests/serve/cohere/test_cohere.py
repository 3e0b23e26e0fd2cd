"""Cohere's chat API; the scripted core says what the user's message says."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from engine.config import EngineConfig
from serve.protocol.chat import ChatRequest
from serve.settings import ServerSettings
from tests.fake_engine import FAIL_STEP
from tests.serve.reply.test_tools import CALL, ROOM, THOUGHT, TOOL, settings
from tests.serve.served import Serve, Served, until

pytestmark = pytest.mark.anyio
LONG = EngineConfig(max_model_len=100_000)
CHAT = "/cohere/v2/chat"
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], **more}


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"].startswith("text/event-stream"), answer.text
    *found, done = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert done == "[DONE]"
    return [json.loads(each) for each in found]


def joined(stream: list[dict[str, Any]], kind: str, *path: str) -> str:
    text = ""
    for each in stream:
        value = each["delta"]["message"] if each["type"] == kind else {}
        for name in path:
            value = value.get(name, {})
        text += value or ""
    return text


async def test_an_answer_has_blocks_and_calls_and_a_stream_adds_up_to_them(serve: Serve) -> None:
    asked = said(f"{THOUGHT}Sure. {CALL}{CALL}", tools=[TOOL])
    async with serve(settings(), ROOM) as served:
        whole = (await served.post(CHAT, **asked)).json()
        stream = events(await served.post(CHAT, **asked, stream=True))
    thought, text = whole["message"]["content"]
    assert (thought, text["type"]) == ({"type": "thinking", "thinking": "Hm."}, "text")
    first, second = whole["message"]["tool_calls"]
    assert first["function"] == second["function"] and first["type"] == "function"
    assert json.loads(first["function"]["arguments"]) == {"city": "Rome"}
    assert (whole["finish_reason"], whole["message"]["role"]) == ("TOOL_CALL", "assistant")
    assert whole["usage"]["tokens"] == whole["usage"]["billed_units"]
    kinds = [each["type"] for each in stream]
    assert list(dict.fromkeys(kinds)) == [
        "message-start", "content-start", "content-delta", "content-end", "tool-call-start",
        "tool-call-delta", "tool-call-end", "message-end",
    ]  # fmt: skip
    places = [(each["type"], each["index"]) for each in stream if "index" in each]
    starts = [each for each in places if each[0].endswith("-start")]
    assert starts == [
        ("content-start", 0), ("content-start", 1), ("tool-call-start", 0), ("tool-call-start", 1),
    ]  # fmt: skip
    ends = [each for each in places if each[0].endswith("-end")]
    assert ends == [(kind.replace("start", "end"), index) for kind, index in starts]
    assert joined(stream, "content-delta", "content", "thinking") == "Hm."
    assert joined(stream, "content-delta", "content", "text") == text["text"]
    arguments = joined(stream, "tool-call-delta", "tool_calls", "function", "arguments")
    assert arguments == first["function"]["arguments"] * 2
    assert stream[-1]["delta"] == {"finish_reason": "TOOL_CALL", "usage": whole["usage"]}
    assert stream[0]["id"] == stream[-1]["id"] != whole["id"]


@pytest.mark.parametrize(
    ("fields", "reason", "text"),
    [
        ({}, "COMPLETE", "abc!d"),
        ({"max_tokens": 2}, "MAX_TOKENS", "ab"),
        ({"stop_sequences": ["!"]}, "STOP_SEQUENCE", "abc"),
    ],
)
async def test_why_an_answer_ended(
    serve: Serve, fields: dict[str, Any], reason: str, text: str
) -> None:
    async with serve(settings(), ROOM) as served:
        whole = (await served.post(CHAT, **said("abc!d", **fields))).json()
        stream = events(await served.post(CHAT, **said("abc!d", **fields), stream=True))
    assert (whole["finish_reason"], whole["message"]["content"][0]["text"]) == (reason, text)
    assert stream[-1]["delta"]["finish_reason"] == reason
    assert joined(stream, "content-delta", "content", "text") == text


async def test_options_are_those_of_the_chat_api(serve: Serve) -> None:
    fields = {
        "temperature": 0.5, "p": 0.5, "k": 7, "seed": 3, "frequency_penalty": 0.25,
        "presence_penalty": 0.75, "max_tokens": 9,
        "citation_options": {"mode": "OFF"}, "safety_mode": "OFF",
        "response_format": {"type": "text"},
    }  # fmt: skip
    async with serve(settings(), ROOM) as served:
        answer = await served.post(CHAT, **said("abc", **fields))
        params = served.core.added[-1].params
    assert answer.status_code == 200, answer.text
    assert (params.temperature, params.top_p, params.top_k, params.seed) == (0.5, 0.5, 7, 3)
    assert (params.frequency_penalty, params.presence_penalty) == (0.25, 0.75)
    assert params.max_tokens == 9


async def test_each_token_has_its_log_probability(serve: Serve) -> None:
    async with serve(settings(), ROOM) as served:
        whole = (await served.post(CHAT, **said("abc", logprobs=True))).json()
        stream = events(await served.post(CHAT, **said("abc", logprobs=True), stream=True))
    pieces = [each["logprobs"] for each in stream if "logprobs" in each]
    for found in (whole["logprobs"], pieces):
        assert "".join(each["text"] for each in found).startswith("abc")
        assert all(len(each["token_ids"]) == len(each["logprobs"]) for each in found)
        tokens = [token for each in found for token in each["token_ids"]]
        assert len(tokens) == whole["usage"]["tokens"]["output_tokens"]
    assert pieces[0]["logprobs"] == whole["logprobs"][0]["logprobs"]


async def rendered(
    served: Served, monkeypatch: pytest.MonkeyPatch, **body: Any
) -> tuple[ChatRequest, httpx.Response]:
    """What the template is given, too."""
    seen: list[ChatRequest] = []
    model = type(served.app.routes[0].app.service.model)  # type: ignore[attr-defined]
    render = model.render
    with monkeypatch.context() as patch:
        patch.setattr(model, "render", lambda own, asked: seen.append(asked) or render(own, asked))
        answer = await served.post(CHAT, **body)
    return seen[0], answer


async def test_turns_and_documents_reach_the_template(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    found = [
        {"type": "document", "document": {"data": '{"t": 5}'}},
        {"type": "document", "document": {"data": {"t": 6}, "id": "d"}},
    ]
    turns = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_plan": "Ask f.", "tool_calls": [call], "citations": []},
        {"role": "tool", "tool_call_id": "c1", "content": found},
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Yes."}],
        },
        {"role": "user", "content": "{}"},
    ]
    shows = settings(
        chat_template="{{ documents }}{{ safety_mode }}{{ messages[-1].content }}<|im_end|>"
    )
    async with serve(shows, ROOM) as served:
        asked, answer = await rendered(
            served, monkeypatch, messages=turns, tools=[TOOL], strict_tools=True,
            tool_choice="NONE", safety_mode="STRICT",
            documents=["It rains.", {"data": {"title": "T"}, "id": "d1"}],
        )  # fmt: skip
        formed, _ = await rendered(
            served, monkeypatch,
            **said("{}", response_format={"type": "json_object", "json_schema": SCHEMA}),
        )  # fmt: skip
        loose, _ = await rendered(
            served, monkeypatch, **said("{}", response_format={"type": "json_object"})
        )
    assert answer.status_code == 200, answer.text
    system, _, plan, result, thought, _ = asked.turns
    assert system.text == "Be brief." and plan.reasoning == "Ask f." and plan.tool_calls
    assert (result.tool_call_id, result.text) == ("c1", '{"t": 5}\n{"id": "d", "t": 6}')
    assert (thought.reasoning, thought.text) == ("Hm.", "Yes.")
    assert asked.documents == [{"text": "It rains."}, {"id": "d1", "title": "T"}]
    assert asked.chat_template_kwargs == {"safety_mode": "STRICT"} and asked.choice == "none"
    assert asked.tools is not None and asked.tools[0].function.strict is True
    assert formed.response_format is not None and formed.response_format.json_schema is not None
    assert formed.response_format.json_schema.schema == SCHEMA
    assert loose.response_format is not None and loose.response_format.type == "json_object"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"messages": []}, "messages"),
        ({"model": "other"}, "other"),
        ({"p": 2}, "p must"),
        ({"k": -5}, "k must"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"max_tokens": 9999}, "max_tokens"),
        ({"citation_options": {"mode": "FAST"}}, "citation"),
        ({"safety_mode": "STRICT"}, "safety_mode"),
        ({"documents": ["It rains."]}, "documents"),
        ({"tool_choice": "REQUIRED"}, "tool_choice"),
        ({"strict_tools": True}, "strict_tools"),
        ({"thinking": {"type": "disabled"}}, "always thinks"),
        ({"thinking": {"type": "enabled", "token_budget": -5}}, "thinking.token_budget"),
        ({"thinking": {"type": "disabled", "token_budget": 5}}, "thinking.token_budget"),
        ({"response_format": {"type": "text", "json_schema": {}}}, "json_schema"),
        (
            {"response_format": {"type": "json_object", "json_schema": {"type": 5}}},
            "response_format",
        ),
        ({"logprobs": True, "stream": True, "tools": [TOOL]}, "logprobs"),
        ({"raw_prompting": True}, "raw_prompting"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "5"}]}, "tool_call_id"),
    ],
)
async def test_what_would_be_ignored_is_refused_in_coheres_words(
    serve: Serve, fields: dict[str, Any], name: str
) -> None:
    async with serve(settings(chat_template="{{ messages[-1].content }}"), ROOM) as served:
        answer = await served.post(CHAT, **{**said("abc"), **fields})
        assert not served.core.added
    assert answer.status_code in (400, 404) and list(answer.json()) == ["message"], answer.text
    assert name in answer.json()["message"]


async def test_keys_and_a_failing_stream_are_told_as_cohere_does(serve: Serve) -> None:
    async with serve(ServerSettings(api_keys=("k",))) as served:
        closed = await served.post(CHAT, **said("abc"))
    assert (closed.status_code, list(closed.json())) == (401, ["message"])
    async with serve(settings(chat_template="{{ messages[-1].content }}"), LONG) as served:
        served.core.step_seconds = 0.01
        going = said("ab", stream=True, max_tokens=90_000)
        running = asyncio.create_task(served.post(CHAT, **going))
        await until(lambda: served.core.num_generated > 4)
        await served.complete(prompt=[FAIL_STEP])
        *_, last = events(await running)
    assert last["type"] == "message-end" and last["delta"]["finish_reason"] == "ERROR"
    assert last["delta"]["error"] and "fire" not in last["delta"]["error"]


async def test_a_chat_may_go_through_token_ids(serve: Serve) -> None:
    asked = said("Hi", max_tokens=4, temperature=0.5, seed=2, stop_sequences=["x"])
    async with serve() as served:
        await served.post(CHAT, **asked)
        rendered = (await served.post(f"{CHAT}/render", **asked)).json()
        answer = await served.post("/inference/v1/generate", **rendered)
        wrong = await served.post(f"{CHAT}/render", **asked, k=-5)
        direct, through = served.core.added
    assert rendered["request_id"].startswith("chat-")
    assert answer.status_code == 200, answer.text
    assert through.prompt_token_ids == direct.prompt_token_ids == rendered["token_ids"]
    assert through.params == direct.params
    assert wrong.status_code == 400 and wrong.json()["message"].startswith("k must be")
