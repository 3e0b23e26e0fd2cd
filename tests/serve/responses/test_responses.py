"""/v1/responses through OpenAI's own client; the scripted core says what the last turn says."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from engine.config import EngineConfig
from engine.errors import NotFoundError
from serve.responses import store as store_module
from serve.responses.protocol import MessageItem, ResponseObject
from serve.responses.store import ResponseStore, Stored
from serve.settings import ServerSettings
from tests.serve.reply.replies import WEATHER
from tests.serve.served import Serve, Served, until

pytestmark = pytest.mark.anyio
SAYS = "{{ messages[-1].content }}{% if enable_thinking %}!{% endif %}<|im_end|>"
ALL = (
    "{% for m in messages %}{{ m.role }}|{{ m.content or '' }}|{{ m.reasoning }}|"
    "{% for c in m.tool_calls %}{{ c.id[:5] }}:{{ c.function.arguments.city }}{% endfor %}|"
    "{{ m.tool_call_id }};{% endfor %}<|im_end|>"
)
CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'
TOOL = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": False}


@asynccontextmanager
async def client(serve: Serve, **changed: Any) -> AsyncIterator[tuple[openai.AsyncOpenAI, Served]]:
    usual = {"chat_template": SAYS, "tool_call_parser": "hermes", "reasoning_parser": "qwen3"}
    settings = ServerSettings(**{**usual, **changed})
    async with serve(settings, EngineConfig(max_model_len=1024)) as served:
        yield (
            openai.AsyncOpenAI(
                api_key="k", base_url="http://test/v1", http_client=served.http, max_retries=0
            ),
            served,
        )


async def test_a_response_has_items(serve: Serve) -> None:
    async with client(serve) as (api, _):
        response = await api.responses.create(
            model="tiny", input=f"<think>Hm.</think>Sure. {CALL}", tools=[TOOL],
            instructions="Be brief.", metadata={"a": "b"},
        )  # fmt: skip
    reasoning, message, call = response.output
    assert reasoning.type == "reasoning" and reasoning.content[0].text == "Hm."
    assert response.output_text == "Sure." and message.role == "assistant"
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Rome"})
    assert response.status == "completed" and response.metadata == {"a": "b"}
    usage = response.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert 0 < usage.output_tokens_details.reasoning_tokens < usage.output_tokens


async def test_a_stream_adds_up_to_the_same(serve: Serve) -> None:
    async with client(serve) as (api, _):
        request = {"model": "tiny", "input": f"<think>Hm.</think>Sure. {CALL}", "tools": [TOOL]}
        stream = await api.responses.create(**request, stream=True)
        events = [event async for event in stream]
        async with api.responses.stream(**request) as helped:
            final = await helped.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done")
    response = events[-1].response
    for mine, theirs in zip(response.output, final.output, strict=True):
        assert mine.type == theirs.type
    done = [event for event in events if event.type == "response.output_item.done"]
    assert [event.item for event in done] == list(response.output)
    pieces = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert "".join(pieces) == response.output_text == "Sure."
    arguments = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert json.loads("".join(arguments)) == {"city": "Rome"}
    thoughts = [e.delta for e in events if e.type == "response.reasoning_text.delta"]
    assert "".join(thoughts) == "Hm."


async def test_events_have_the_fields_of_a_recorded_stream(serve: Serve, shared_data: Path) -> None:
    recorded = shared_data / "conformance/openai/sse_recorded_responses/basic-event-stream.txt"
    theirs = _fields(recorded.read_text())
    async with client(serve) as (_, served):
        response = await served.post("/v1/responses", model="tiny", input="Hello", stream=True)
    mine = _fields(response.text)
    for name, fields in theirs.items():
        assert mine[name] >= fields, name


def _fields(stream: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for block in stream.strip().split("\n\n"):
        name, data = block.split("\n", 1)
        event = json.loads(data.removeprefix("data: "))
        assert event["type"] == name.removeprefix("event: ")
        if event.get("item", {}).get("type") != "reasoning":
            own = set(event) | {f"response.{key}" for key in event.get("response", ())}
            found[event["type"]] = own - {"response.service_tier"}
    return found


async def test_a_response_is_gone_on_with(serve: Serve) -> None:
    async with client(serve, chat_template=ALL, reasoning_parser="none") as (api, _):
        first = await api.responses.create(model="tiny", input="Q", instructions="S")
        second = await api.responses.create(
            model="tiny", input="R", previous_response_id=first.id, store=False
        )
        assert (await api.responses.retrieve(first.id)).output_text == first.output_text
        await api.responses.delete(first.id)
        for missing in (first.id, second.id):
            with pytest.raises(openai.NotFoundError):
                await api.responses.retrieve(missing)
    assert first.output_text == "system|S|||;user|Q|||;"
    assert second.output_text == f"user|Q|||;assistant|{first.output_text}|||;user|R|||;"


async def test_a_request_may_name_its_response(serve: Serve) -> None:
    async with client(serve, api_keys=("a", "b")) as (api, _):
        mine, other = api.with_options(api_key="a"), api.with_options(api_key="b")
        asked = {"model": "tiny", "input": "Q", "extra_body": {"request_id": "resp_mine"}}
        first = await mine.responses.create(**asked)
        with pytest.raises(openai.BadRequestError, match="another request_id"):
            await mine.responses.create(**asked)
        await other.responses.create(**{**asked, "input": "R"})
        found = await mine.responses.retrieve("resp_mine")
        await mine.responses.delete("resp_mine")
        again = await mine.responses.create(**asked, background=True)
        theirs = await other.responses.retrieve("resp_mine")
    assert first.id == found.id == again.id == "resp_mine"
    assert (found.output_text, theirs.output_text) == ("Q", "R")


async def test_reasoning_may_be_left_out(serve: Serve) -> None:
    asked: dict[str, Any] = {"model": "tiny", "input": "<think>Hm.</think>Sure."}
    async with client(serve) as (api, _):
        answer = await api.responses.create(**asked, extra_body={"include_reasoning": False})
    assert [item.type for item in answer.output] == ["message"] and answer.output_text == "Sure."


async def test_items_come_back_as_they_were(serve: Serve) -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Q"}]},
        {"type": "reasoning", "id": "rs", "summary": [],
         "content": [{"type": "reasoning_text", "text": "Hm"}]},
        {"type": "message", "role": "assistant", "id": "m", "status": "completed",
         "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}]},
        {"type": "function_call", "call_id": "call1", "name": "get_weather",
         "arguments": '{"city": "Rome"}'},
        {"type": "function_call_output", "call_id": "call1", "output": "sunny"},
    ]  # fmt: skip
    async with client(serve, chat_template=ALL, reasoning_parser="none") as (api, _):
        response = await api.responses.create(model="tiny", input=items, tools=[TOOL])
    assert response.output_text == (
        "user|Q|||;assistant|Let me see.|Hm|call1:Rome|;tool|sunny|||call1;"
    )


async def test_one_in_the_background_can_be_waited_for_or_cancelled(serve: Serve) -> None:
    async with client(serve) as (api, served):
        done = await api.responses.create(model="tiny", input="Hello", background=True)
        assert done.status in ("queued", "in_progress") and not done.output
        while done.status in ("queued", "in_progress"):
            await asyncio.sleep(0.01)
            done = await api.responses.retrieve(done.id)
        served.core.step_seconds = 0.05
        long = await api.responses.create(model="tiny", input="x" * 900, background=True)
        with pytest.raises(openai.BadRequestError, match="not complete"):
            await api.responses.create(model="tiny", input="R", previous_response_id=long.id)
        await until(lambda: served.core.running)
        cancelled = await api.responses.cancel(long.id)
        await until(lambda: not served.core.running)
        assert len(served.core.aborted) == 1
        whole = await api.responses.create(model="tiny", input="Hi")
        with pytest.raises(openai.BadRequestError, match="background"):
            await api.responses.cancel(whole.id)
    assert done.output_text == "Hello" and cancelled.status == "cancelled"


async def test_it_may_be_cut_off_and_scored(serve: Serve) -> None:
    async with client(serve) as (api, _):
        response = await api.responses.create(
            model="tiny", input="Hello", max_output_tokens=3, top_logprobs=2,
            include=["message.output_text.logprobs"],
        )  # fmt: skip
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    scores = response.output[0].content[0].logprobs
    assert [score.token for score in scores] == list("Hel") and len(scores[0].top_logprobs) == 2


@pytest.mark.parametrize(("fields", "param", "sentence"), [
    ({}, "input", "text or a list"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input", "input[0]"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input", "input_image"),
    ({"input": "x", "previous_response_id": "resp_x"}, "previous_response_id", "no response"),
    ({"input": "x", "tool_choice": "required"}, "tool_choice", "needs tools"),
    ({"input": "x", "tool_choice": {"type": "function", "name": "f"}}, "tool_choice", "not among"),
    ({"input": "x", "top_logprobs": 2}, "top_logprobs", "include"),
    ({"input": "x", "reasoning": {"summary": "detailed"}}, "reasoning", "detailed"),
    ({"input": [{"role": "user", "content": "x", "mood": "good"}]}, "input", "mood"),
    ({"input": [{"role": "user", "content": [
        {"type": "input_text", "text": "x", "size": 1}]}]}, "input", "size"),
    ({"input": "x", "max_tool_calls": 3}, "max_tool_calls", "not supported"),
    ({"input": "x", "background": True, "store": False}, "store", "needs store"),
    ({"input": "x", "include": ["file_search_call.results"]}, "include", "not served"),
    ({"input": "x", "tools": [{"type": "web_search"}]}, "tools", "web_search"),
    ({"input": "x", "truncation": "auto"}, "truncation", "auto"),
    ({"input": "x", "conversation": "c"}, "conversation", "conversation"),
    ({"input": "x", "max_output_tokens": 0}, "max_output_tokens", "at least 1"),
])  # fmt: skip
async def test_what_is_not_served_is_refused(
    serve: Serve, fields: dict[str, Any], param: str, sentence: str
) -> None:
    async with client(serve) as (_, served):
        response = await served.post("/v1/responses", model="tiny", **fields)
    error = response.json()["error"]
    assert response.status_code in (400, 404) and error["param"] == param
    assert sentence in error["message"]


async def test_what_changes_nothing_is_taken(serve: Serve) -> None:
    """Among it what the official client makes of an answer that is sent back."""
    async with client(serve) as (api, served):
        first = await api.responses.create(
            model="tiny", input=f"<think>Hm.</think>Sure. {CALL}", tools=[TOOL],
            tool_choice="auto", top_logprobs=0, reasoning={"summary": "auto"},
            text={"verbosity": "medium"}, extra_body={"max_tool_calls": None, "prompt": None},
        )  # fmt: skip
        assert len(first.output) == 3
        again = [item.model_dump() for item in first.output]
        gave = {"type": "function_call_output", "call_id": "c", "output": "x", "id": None}
        back = await served.post("/v1/responses", input=[*again, gave], tool_choice="none")
    assert back.status_code == 200, back.text


async def test_sampling_goes_to_the_engine_as_in_the_chat_api(serve: Serve) -> None:
    options = {
        "presence_penalty": 1.0, "frequency_penalty": 0.5, "repetition_penalty": 1.5, "min_p": 0.1,
        "logit_bias": {"5": 1.0}, "stop": "lo", "ignore_eos": True, "seed": 3,
    }  # fmt: skip
    async with client(serve) as (_, served):
        answer = await served.post("/v1/responses", input="Hello", **options)
        wrong = await served.post("/v1/responses", input="Hello", vllm_xargs={"a": "text"})
        params = served.core.added[0].params
    assert answer.json()["output"][0]["content"][0]["text"] == "Hel"
    own = {**options, "logit_bias": {5: 1.0}, "stop": None}  # the engine knows no texts
    assert {name: getattr(params, name) for name in options} == own
    assert wrong.json()["error"]["param"] == "vllm_xargs"


async def test_vllms_options_are_those_of_chats(serve: Serve) -> None:
    """The scripted core says what the prompt's last message says, and heeds no grammar."""
    options = {
        "stop_token_ids": [ord("l")], "include_stop_str_in_output": True,
        "skip_special_tokens": False, "structured_outputs": {"choice": ["Hello"]},
    }  # fmt: skip
    async with client(serve) as (_, served):
        answer = await served.post("/v1/responses", input="Hello", **options)
        twice = await served.post(
            "/v1/responses", input="Hello", structured_outputs={"choice": ["a"], "regex": "b"}
        )
        asked = served.core.added[0]
    assert answer.status_code == 200, answer.text
    assert asked.params.stop_token_ids == [ord("l")] and asked.grammar
    assert not asked.params.skip_special_tokens
    assert twice.status_code == 400 and "structured_outputs" in twice.text


async def test_some_tools_are_allowed(serve: Serve) -> None:
    other = {"type": "function", "name": "get_time", "parameters": {}, "strict": False}
    choice = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "get_time"}],
    }
    async with client(serve) as (_, served):
        answer = await served.post(
            "/v1/responses", input="a", tools=[TOOL, other], tool_choice=choice, max_output_tokens=1
        )
        [request] = served.core.added
    assert answer.json()["tool_choice"] == choice and len(answer.json()["tools"]) == 2
    assert "get_time" in request.grammar and "get_weather" not in request.grammar


async def test_one_in_the_background_is_streamed_and_goes_on_without_its_client(
    serve: Serve,
) -> None:
    async with client(serve) as (api, served):
        stream = await api.responses.create(
            model="tiny", input=f"<think>Hm.</think>Sure. {CALL}", tools=[TOOL],
            background=True, stream=True,
        )  # fmt: skip
        events = [event async for event in stream]
        final = events[-1].response
        url = f"/v1/responses/{final.id}?stream=true"
        whole = await served.http.get(url)
        rest = await served.http.get(f"{url}&starting_after={len(events) - 3}")
        bad = await served.http.get(f"{url}&starting_after=x")
        plain = await api.responses.create(model="tiny", input="Hi")
        unlogged = await served.http.get(f"/v1/responses/{plain.id}?stream=true")

        served.core.step_seconds = 0.01
        body = {"model": "tiny", "input": "x" * 60, "background": True, "stream": True}
        left = asyncio.create_task(served.post("/v1/responses", **body))
        await until(lambda: served.core.running)
        left.cancel()
        name = next(iter(served.engine.flights.in_flight()))[0].rpartition("-")[0]
        caught_up = await served.http.get(f"/v1/responses/{name}?stream=true")
        assert not served.core.aborted
        gone = asyncio.create_task(served.post("/v1/responses", **body))
        await until(lambda: served.core.running)
        other = next(iter(served.engine.flights.in_flight()))[0].rpartition("-")[0]
        await api.responses.cancel(other)
        cancelled = await gone
    assert final.status == "completed" and final.output_text == "Sure." and final.background
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert whole.text.count("event: ") == len(events) and rest.text.count("event: ") == 2
    assert whole.text.endswith(rest.text)
    assert (bad.status_code, unlogged.status_code) == (400, 400)
    assert caught_up.text.startswith("event: response.created")
    assert "event: response.completed" in caught_up.text and "x" * 60 in caught_up.text
    assert cancelled.text.rstrip().split("event: ")[-1].startswith("response.cancelled")


async def test_the_events_of_a_cancelled_response_count_too(serve: Serve, monkeypatch) -> None:
    monkeypatch.setattr(store_module, "MAX_BYTES", 4000)
    async with client(serve) as (api, served):
        served.core.step_seconds = 0.01
        body = {"model": "tiny", "input": "x" * 900, "background": True, "stream": True}
        streamed = asyncio.create_task(served.post("/v1/responses", **body))
        await until(lambda: len(served.core.running) and served.engine.stats.num_steps > 40)
        name = next(iter(served.engine.flights.in_flight()))[0].rpartition("-")[0]
        await api.responses.cancel(name)
        held = len((await streamed).content)
        await api.responses.create(model="tiny", input="Hi")
        forgotten = await served.http.get(f"/v1/responses/{name}")
    assert held > 4000 and forgotten.status_code == 404


def test_the_store_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_RESPONSES", 3)
    monkeypatch.setattr(store_module, "MAX_BYTES", 4000)
    store = ResponseStore()

    def put(name: str, size: int) -> None:
        response = ResponseObject(id=name, created_at=0, status="completed", model="m", output=[])
        store.put(Stored(response, [MessageItem(role="user", content="x" * size)]))

    def kept() -> list[str]:
        names = []
        for name in "abcde":
            with contextlib.suppress(NotFoundError):
                names.append(store.get(name).response.id)
        return names

    for name in "abc":
        put(name, 10)
    store.get("a")
    put("d", 10)
    assert kept() == ["a", "c", "d"]
    put("e", 2500)
    assert kept() == ["d", "e"]
    store.get("e").task = object()  # type: ignore[assignment]  # one that still works
    for name in "abcd":
        put(name, 10)
    assert kept() == ["d", "e"]
    for name in "de":
        store.delete(store.get(name))
    assert store._num_bytes == 0


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"type": "json_schema", "name": "x", "schema": {"type": "bogus"}}, "text.format.schema"),
        ({"type": "json_schema", "name": "x", "schema": {"not": {}}}, "text.format.schema"),
        ({"type": "json_schema", "name": "x"}, "text.format.schema"),
        ({"type": "json_schema", "name": 5, "schema": {}}, "text.format.name"),
        ({"type": "bogus"}, "text.format.type"),
        ({"type": "json_object", "triggers": ["a"]}, "text.format"),
    ],
)
async def test_a_wrong_format_is_named_where_it_is(serve: Serve, form, param) -> None:
    async with client(serve) as (_, served):
        answer = await served.post("/v1/responses", input="a", text={"format": form})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["message"].split()[0].rstrip(":")) == (param, param)
