"""Ollama's API; the scripted core says what the user's message says."""

import json
from typing import Any

import pytest

from serve.protocol.chat import ChatRequest
from tests.serve.reply.test_tools import CALL, ROOM, THOUGHT, TOOL, settings
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio
ROME = [{"function": {"name": "get_weather", "arguments": {"city": "Rome"}}}]
FINAL = {
    "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count",
    "eval_duration", "done_reason",
}  # fmt: skip


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "tiny:latest", "messages": [{"role": "user", "content": text}], **more}


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_a_chat_is_answered_line_by_line_unless_it_is_not_to_be(serve: Serve) -> None:
    asked = said(f"{THOUGHT}Sure. {CALL}{CALL}", tools=[TOOL])
    async with serve(settings(), ROOM) as served:
        streamed = await served.post("/api/chat", **asked)
        whole = (await served.post("/api/chat", **asked, stream=False)).json()
    assert streamed.headers["content-type"] == "application/x-ndjson"
    *pieces, last = lines(streamed.text)
    messages = [piece["message"] for piece in pieces]
    assert "".join(each["content"] for each in messages) == "Sure."
    assert "".join(each.get("thinking", "") for each in messages) == "Hm."
    assert [each["tool_calls"] for each in messages if "tool_calls" in each] == [ROME, ROME]
    assert not any(piece["done"] or FINAL & piece.keys() for piece in pieces) and len(pieces) > 6
    assert last["done"] is True and last["message"] == {"content": "", "role": "assistant"}
    assert whole["message"] == {
        "content": "Sure.", "role": "assistant", "thinking": "Hm.", "tool_calls": ROME * 2,
    }  # fmt: skip
    for end in (last, whole):
        assert end.keys() >= FINAL and (end["model"], end["done_reason"]) == ("tiny", "stop")
        assert end["eval_count"] == len(asked["messages"][0]["content"]) + 1
        parts = end["prompt_eval_duration"] + end["eval_duration"]
        assert 0 < parts <= end["total_duration"] <= parts + 2  # each is rounded


async def test_programs_need_not_say_that_they_send_json(serve: Serve) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}  # of a plain `curl -d`
    asked = said("Hi", stream=False)
    asked["messages"][0]["images"] = []  # as litellm's, too
    body = json.dumps(asked).encode()
    async with serve() as served:
        for headers, status in (
            ({}, 200), (form, 200), ({"origin": "null"}, 415), ({"sec-fetch-site": "none"}, 415),
        ):  # fmt: skip
            answer = await served.http.post("/api/chat", content=body, headers=headers)
            assert answer.status_code == status
        elsewhere = await served.http.post("/v1/chat/completions", content=body)
    assert elsewhere.status_code == 415


async def test_a_prompt_is_a_question(serve: Serve) -> None:
    async with serve(settings(), ROOM) as served:
        options = {"num_predict": 90, "temperature": 0, "repeat_penalty": 1.1, "stop": ["!"]}
        asked = {"prompt": f"{THOUGHT}Yes, it is! No.", "options": options}
        cut = await served.post("/api/generate", prompt="abc", options={"num_predict": 2})
        whole = (await served.post("/api/generate", **asked, stream=False)).json()
        added = served.core.added[-1].params
    found = (whole["response"], whole["thinking"], whole["done_reason"])
    assert found == ("Yes, it is", "Hm.", "stop")
    assert (added.max_tokens, added.temperature, added.repetition_penalty) == (90, 0, 1.1)
    *pieces, last = lines(cut.text)
    assert [piece["response"] for piece in pieces] == ["a", "b"] and "message" not in last
    assert (last["response"], last["done_reason"]) == ("", "length")


async def test_turns_reach_the_template(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results have no ids in this API: they belong to the calls in their order."""
    rendered: list[ChatRequest] = []
    call = {"function": {"name": "get_time", "arguments": {"a": 1}}}
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": [call, call]},
        {"role": "tool", "content": "5", "tool_name": "get_time"},
        {"role": "tool", "content": "6"},
    ]
    async with serve(settings(), ROOM) as served:
        model = type(served.app.routes[0].app.service.model)  # type: ignore[attr-defined]
        render = model.render
        monkeypatch.setattr(
            model, "render", lambda own, asked: rendered.append(asked) or render(own, asked)
        )
        answer = await served.post("/api/chat", messages=turns, stream=False, format="json")
        schema = {"type": "object", "properties": {}}
        await served.post("/api/chat", **said("{}"), stream=False, format=schema)
    assert answer.status_code == 200, answer.text
    first, second = rendered
    assistant, five, six = first.turns[2:]
    assert assistant.reasoning == "Hm." and assistant.tool_calls is not None
    assert [each.function.arguments for each in assistant.tool_calls] == [{"a": 1}] * 2
    assert [each.id for each in assistant.tool_calls] == [five.tool_call_id, six.tool_call_id]
    assert five.name == "get_time"
    assert first.response_format is not None and first.response_format.type == "json_object"
    assert second.response_format is not None and second.response_format.json_schema is not None
    assert second.response_format.json_schema.schema == schema


async def test_a_model_is_there_and_described(serve: Serve) -> None:
    async with serve(settings()) as served:
        loaded = [
            (await served.post("/api/chat", model="tiny", messages=[])).json(),
            (await served.post("/api/generate", model="tiny", prompt="", keep_alive="5m")).json(),
        ]
        [card] = (await served.http.get("/api/tags")).json()["models"]
        shown = (await served.post("/api/show", name="tiny")).json()
        assert not served.core.added
    assert [(each["done"], each["done_reason"]) for each in loaded] == [(True, "load")] * 2
    assert card["name"] == card["model"] == "tiny" and len(card["digest"]) == 64
    assert card["details"] == shown["details"] and card["details"]["parameter_size"] == "1.2B"
    assert shown["capabilities"] == ["completion", "tools", "thinking"]
    assert shown["model_info"]["FakeForCausalLM.context_length"] == 128 and shown["template"]


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/api/chat", {}, "messages"),
        ("/api/chat", said("a", model="other"), "model"),
        ("/api/chat", said("a", think=True), "think"),
        ("/api/chat", said("a", format="yaml"), "format"),
        ("/api/chat", said("a", format={"type": "bogus"}), "format"),
        ("/api/chat", said("a", keep_alive=0), "keep_alive"),
        ("/api/chat", said("a", options={"num_predict": 999}), "num_predict"),
        ("/api/chat", said("a", options={"num_ctx": 999}), "num_ctx"),
        ("/api/chat", said("a", options={"repeat_penalty": 0}), "repeat_penalty"),
        ("/api/chat", said("a", options={"mirostat": 1}), "options"),
        ("/api/chat", said("a", n=2), "n"),
        ("/api/chat", {"messages": [{"role": "user", "content": "a", "images": ["b"]}]}, "images"),
        ("/api/generate", {}, "prompt"),
        ("/api/generate", {"prompt": "a" * 200}, "prompt"),
        ("/api/generate", {"prompt": "a", "raw": True}, "raw"),
        ("/api/generate", {"prompt": "a", "suffix": "b"}, "suffix"),
        ("/api/generate", {"prompt": "a", "images": ["b"]}, "images"),
        ("/api/show", {}, "model"),
        ("/api/show", {"model": "other"}, "model"),
    ],
)
async def test_what_is_wrong_is_named(
    serve: Serve, path: str, fields: dict[str, Any], param: str
) -> None:
    async with serve() as served:
        answer = await served.post(path, **fields)
    assert answer.status_code in (400, 404), answer.text
    body = answer.json()
    assert set(body) == {"error"} and param in body["error"], answer.text


async def test_what_fails_on_the_way_is_a_line(serve: Serve) -> None:
    async with serve(settings(), ROOM) as served:
        step = served.core.step
        served.core.step = lambda: _failing(step, served)  # type: ignore[method-assign]
        answer = await served.post("/api/chat", **said("abcdef"))
    *pieces, last = lines(answer.text)
    assert answer.status_code == 200 and pieces and set(last) == {"error"}


def _failing(step: Any, served: Any) -> Any:
    if served.core.num_steps == 3:
        raise RuntimeError("the device is on fire")
    return step()
