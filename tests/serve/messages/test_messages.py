"""/v1/messages through Anthropic's own client; the scripted core says what a message says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx2
import pytest

from engine.config import EngineConfig
from serve.settings import ServerSettings
from tests.serve.reply.replies import WEATHER
from tests.serve.served import Serve, Served

pytestmark = pytest.mark.anyio
SAYS = "{{ messages[-1].content }}{% if enable_thinking %}!{% endif %}<|im_end|>"
CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'
TOOL = {"name": "get_weather", "description": "Weather", "input_schema": WEATHER}


@asynccontextmanager
async def client(
    serve: Serve, **changed: Any
) -> AsyncIterator[tuple[anthropic.AsyncAnthropic, Served]]:
    usual = {"chat_template": SAYS, "tool_call_parser": "hermes", "reasoning_parser": "qwen3"}
    settings = ServerSettings(**{**usual, **changed})
    async with serve(settings, EngineConfig(max_model_len=1024)) as served:
        web = httpx2.AsyncClient(transport=httpx2.ASGITransport(app=served.app))
        api = anthropic.AsyncAnthropic(
            api_key="k", base_url="http://test", http_client=web, max_retries=0
        )
        async with api:
            yield api, served


def said(text: Any, **rest: Any) -> dict[str, Any]:
    return {
        "model": "tiny",
        "max_tokens": 500,
        "messages": [{"role": "user", "content": text}],
        **rest,
    }


async def test_a_message_has_blocks(serve: Serve) -> None:
    async with client(serve) as (api, _):
        message = await api.messages.create(
            **said(f"<think>Hm.</think>Sure. {CALL}", tools=[TOOL], system="Be brief.")
        )
    thinking, text, call = message.content
    assert (thinking.type, thinking.thinking) == ("thinking", "Hm.")
    assert (text.type, text.text) == ("text", "Sure.")
    assert (call.type, call.name, call.input) == ("tool_use", "get_weather", {"city": "Rome"})
    assert message.stop_reason == "tool_use" and message.role == "assistant"
    assert message.id.startswith("msg_") and message.usage.output_tokens > 10


async def test_a_stream_adds_up_to_the_same(serve: Serve) -> None:
    async with client(serve) as (api, _):
        request = said(f"<think>Hm.</think>Sure. {CALL}", tools=[TOOL])
        async with api.messages.stream(**request) as stream:
            kinds = [event.type async for event in stream]
            message = await stream.get_final_message()
        raw = await api.messages.create(**request, stream=True)
        names = [event.type async for event in raw]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    assert names.count("content_block_start") == names.count("content_block_stop") == 3
    assert names[-2:] == ["message_delta", "message_stop"]
    thinking, text, call = message.content
    assert thinking.thinking == "Hm." and text.text == "Sure."
    assert call.input == {"city": "Rome"} and message.stop_reason == "tool_use"
    assert message.usage.output_tokens > 10


async def test_a_conversation_comes_back_as_it_was(serve: Serve) -> None:
    template = (
        "{% for m in messages %}{{ m.role }}|{{ m.content or '' }}|{{ m.reasoning }}|"
        "{% for c in m.tool_calls %}{{ c.id }}:{{ c.function.arguments.city }}{% endfor %}|"
        "{{ m.tool_call_id }};{% endfor %}{{ tools[0].function.name }}<|im_end|>"
    )
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Q", "cache_control": None}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm", "signature": ""},
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"city": "Rome"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "c1", "content": [
                {"type": "text", "text": "sunny"}]},
            {"type": "text", "text": "and?"},
        ]},
    ]  # fmt: skip
    async with client(serve, chat_template=template) as (api, _):
        message = await api.messages.create(
            **said("", messages=messages, tools=[TOOL], system=[{"type": "text", "text": "S"}])
        )
    assert message.content[0].text == (
        "system|S|||;user|Q|||;assistant|Let me see.|Hm|c1:Rome|;tool|sunny|||c1;user|and?|||;"
        "get_weather"
    )


async def test_an_answer_that_was_begun_is_continued(serve: Serve) -> None:
    async with client(serve, chat_template="{{ messages[-1].content }}") as (api, served):
        begun = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "The ans"}]
        message = await api.messages.create(**said("", messages=begun, max_tokens=7))
        assert bytes(served.core.added[0].prompt_token_ids[-1:])
    assert message.content[0].text == "The ans" and message.stop_reason == "max_tokens"


async def test_why_it_stopped(serve: Serve) -> None:
    async with client(serve) as (api, _):
        sequence = await api.messages.create(**said("one two three", stop_sequences=["two"]))
        turn = await api.messages.create(**said("one"))
        cut = await api.messages.create(**said("one two", max_tokens=2))
    assert (sequence.stop_reason, sequence.stop_sequence) == ("stop_sequence", "two")
    assert sequence.content[0].text == "one "
    assert (turn.stop_reason, cut.stop_reason) == ("end_turn", "max_tokens")


async def test_thinking_is_what_the_template_makes_of_it(serve: Serve) -> None:
    async with client(serve) as (api, _):
        on = await api.messages.create(
            **said("Hi", thinking={"type": "enabled", "budget_tokens": 1024})
        )
        off = await api.messages.create(**said("Hi", thinking={"type": "disabled"}))
    assert (on.content[0].text, off.content[0].text) == ("Hi!", "Hi")
    async with client(serve, chat_template="{{ messages[0].content }}") as (api, _):
        with pytest.raises(anthropic.BadRequestError, match="always thinks"):
            await api.messages.create(**said("Hi", thinking={"type": "disabled"}))


async def test_tokens_are_counted_without_the_engine(serve: Serve) -> None:
    async with client(serve) as (api, served):
        count = await api.messages.count_tokens(
            model="tiny", messages=[{"role": "user", "content": "four"}]
        )
        assert not served.core.added
    assert count.input_tokens == 4 + 1


async def test_errors_are_the_clients_own(serve: Serve) -> None:
    async with client(serve) as (api, served):
        with pytest.raises(anthropic.NotFoundError, match="not served"):
            await api.messages.create(**said("Hi", model="claude"))
        with pytest.raises(anthropic.BadRequestError, match="temperature"):
            await api.messages.create(**said("Hi", extra_body={"temperature": -1}))
        with pytest.raises(anthropic.BadRequestError, match="image"):
            await api.messages.create(**said([{"type": "image", "source": {}}]))
        bad = await served.post("/v1/messages", model="tiny", messages=[], container="x")
    assert bad.json()["type"] == "error" and "container" in bad.json()["error"]["message"]


async def test_keys_come_in_anthropics_header_too(serve: Serve) -> None:
    async with client(serve, api_keys=("k",)) as (api, served):
        assert (await api.messages.create(**said("Hi"))).content
        wrong = await served.http.post("/v1/messages", json={}, headers={"x-api-key": "K"})
    assert wrong.status_code == 401


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
FORMAT = {"type": "json_schema", "schema": SCHEMA}


async def test_answers_are_bound_to_a_schema(serve: Serve) -> None:
    """Under the name that clients send now, and the one before it."""
    async with client(serve) as (api, served):
        for field in ({"output_config": {"format": FORMAT}}, {"output_format": FORMAT}):
            answer = await served.post("/v1/messages", **said("a", **field))
            assert answer.status_code == 200, answer.text
        beside = await served.post(
            "/v1/messages", **said("a", tools=[TOOL], output_config={"format": FORMAT})
        )
        assert beside.status_code == 200, beside.text
        first, second, third = served.core.added
        assert "get_weather" in third.grammar and '"integer"' in third.grammar
        message = await api.messages.create(**said("a", output_config={"format": FORMAT}))
    assert message.type == "message"
    assert first.grammar == second.grammar and '"integer"' in first.grammar


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ({"output_config": {"format": {**FORMAT, "schema": {"type": "bogus"}}}},
         "output_config.format.schema"),
        ({"output_format": {**FORMAT, "schema": {"type": "bogus"}}}, "output_format.schema"),
        ({"output_format": FORMAT, "output_config": {"format": FORMAT}}, "output_format"),
        ({"output_config": {"effort": "enormous"}}, "output_config"),
        ({"output_config": {"format": {"type": "text"}}}, "output_config"),
    ],
)  # fmt: skip
async def test_formats_that_cannot_be(serve: Serve, field, param) -> None:
    async with client(serve) as (_, served):
        answer = await served.post("/v1/messages", **said("a", **field))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_effort_is_a_hint(serve: Serve) -> None:
    """Templates that take one are told; others are not."""
    template = "{{ reasoning_effort }}<|im_end|>"
    config = {"output_config": {"effort": "max"}}
    async with client(serve, chat_template=template) as (_, served):
        told = await served.post("/v1/messages", **said("a", **config))
        off = await served.post("/v1/messages", **said("a", **config, thinking=OFF))
    async with client(serve, chat_template="{{ messages[-1].content }}<|im_end|>") as (_, served):
        untold = await served.post("/v1/messages", **said("a", **config))
    assert [each.json()["content"][0]["text"] for each in (told, off, untold)] == [
        "high", "none", "a",
    ]  # fmt: skip


async def test_thinking_is_counted(serve: Serve) -> None:
    async with client(serve) as (api, _):
        message = await api.messages.create(**said("<think>Hm.</think>Sure."))
    assert message.usage.output_tokens_details.thinking_tokens == 3


OFF = {"type": "disabled"}


SHOWN = "{{ messages[-1].content }}{% if reasoning_effort %}{% endif %}<|im_end|>"


async def test_failures_are_said_and_thinking_is_left_out(serve: Serve) -> None:
    def result(**fields: Any) -> dict[str, Any]:
        return said([{"type": "tool_result", "tool_use_id": "c", **fields}])

    async with client(serve, chat_template=SHOWN) as (_, served):
        texts = [
            (await served.post("/v1/messages", **result(**fields))).json()["content"]
            for fields in (
                {"content": "no file", "is_error": True},
                {"content": "no file", "is_error": False},
                {"content": "Error: no file", "is_error": True},
                {"is_error": True},
            )
        ]
        thinking = {"type": "enabled", "budget_tokens": 1024, "display": "omitted"}
        effort = {"chat_template_kwargs": {"reasoning_effort": "low"}}
        assert (await served.post("/v1/messages", **said("a", **effort))).status_code == 200
        assert (
            await served.post("/v1/messages", **said("a", chat_template_kwargs={"b": 1}))
        ).json()["error"]["param"] == "chat_template_kwargs"
        omitted = await served.post(
            "/v1/messages", **said("<think>Hm.</think>Sure.", thinking=thinking)
        )
    assert [each[0]["text"] for each in texts] == [
        "Error: no file", "no file", "Error: no file", "Error",
    ]  # fmt: skip
    assert [each["type"] for each in omitted.json()["content"]] == ["text"]
    assert omitted.json()["usage"]["output_tokens_details"]["thinking_tokens"] == 3


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"tool_choice": {"type": "any"}}, 400, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "x"}}, 400, "tool_choice"),
        ({"thinking": {"type": "disabled", "budget_tokens": 1024}}, 400, "thinking"),
        ({"tool_choice": {"type": "auto"}}, 200, None),
        ({"tool_choice": {"type": "none"}}, 200, None),
    ],
)
async def test_what_would_have_no_effect_is_refused(serve: Serve, fields, status, param) -> None:
    async with client(serve, chat_template=SHOWN) as (_, served):
        answer = await served.post("/v1/messages", **said("a", **fields))
    assert answer.status_code == status, answer.text
    assert status == 200 or answer.json()["error"]["param"] == param
