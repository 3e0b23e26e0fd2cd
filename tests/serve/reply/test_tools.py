"""Tools and reasoning over HTTP; the scripted core says what the user's message says."""

import json
from typing import Any

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from engine.config import EngineConfig
from serve.settings import ServerSettings
from tests.serve.reply.replies import WEATHER
from tests.serve.served import Serve, event_data

pytestmark = pytest.mark.anyio
SAYS = "{{ messages[-1].content }}{% if tools %}{% endif %}<|im_end|>"
ROOM = EngineConfig(max_model_len=1024)
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
FUNCTION = TOOL["function"]
OTHER = {"type": "function", "function": {"name": "get_time", "description": None}}
CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'
THOUGHT = "<think>\nHm.\n</think>\n\n"


def settings(**changed: Any) -> ServerSettings:
    usual = {"chat_template": SAYS, "tool_call_parser": "hermes", "reasoning_parser": "qwen3"}
    return ServerSettings(**{**usual, **changed})


async def test_a_reply_is_taken_apart(serve: Serve) -> None:
    async with serve(settings(), ROOM) as served:
        body = (await served.chat(f"{THOUGHT}Sure. {CALL}{CALL}", tools=[TOOL, OTHER])).json()
    [choice] = body["choices"]
    message = choice["message"]
    assert choice["finish_reason"] == "tool_calls"
    assert message["content"] == "Sure."
    assert message["reasoning"] == message["reasoning_content"] == "Hm."
    calls = message["tool_calls"]
    assert [call["function"] for call in calls] == [
        {"name": "get_weather", "arguments": '{"city": "Rome"}'}
    ] * 2
    assert all(call["type"] == "function" and call["id"].startswith("call_") for call in calls)
    assert calls[0]["id"] != calls[1]["id"]


async def test_a_stream_says_the_same(serve: Serve) -> None:
    async with serve(settings(), ROOM) as served:
        response = await served.chat(f"{THOUGHT}Sure. {CALL}{CALL}", tools=[TOOL], stream=True, n=2)
    *chunks, done = event_data(response.text)
    assert done == "[DONE]"
    for index in (0, 1):
        choices = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
        deltas = [choice["delta"] for choice in choices]
        assert "".join(d.get("reasoning", "") for d in deltas) == "Hm."
        assert "".join(d.get("content", "") for d in deltas) == "Sure."
        calls: dict[int, dict[str, str]] = {}
        for call in (call for delta in deltas for call in delta.get("tool_calls", ())):
            function = call["function"]
            if "id" in call:
                assert call["index"] not in calls and call["type"] == "function"
                calls[call["index"]] = {"name": function["name"], "arguments": ""}
            calls[call["index"]]["arguments"] += function.get("arguments", "")
        rome = {"name": "get_weather", "arguments": '{"city": "Rome"}'}
        assert calls == {0: rome, 1: rome}
        reasons = [choice["finish_reason"] for choice in choices]
        assert reasons == [None] * (len(reasons) - 1) + ["tool_calls"]


async def test_parts_that_are_not_wanted_are_left_out(serve: Serve) -> None:
    reply = f"{THOUGHT}{CALL}{CALL}"
    async with serve(settings(), ROOM) as served:
        one = await served.chat(
            reply, tools=[TOOL], parallel_tool_calls=False, include_reasoning=False
        )
        none = await served.chat(reply, tools=[TOOL], tool_choice="none", separate_reasoning=False)
    [choice] = one.json()["choices"]
    assert len(choice["message"]["tool_calls"]) == 1 and choice["message"]["content"] is None
    assert "reasoning" not in choice["message"]
    [choice] = none.json()["choices"]
    assert choice["message"]["content"] == reply and choice["finish_reason"] == "stop"


async def test_tokens_do_not_show_what_is_left_out(serve: Serve) -> None:
    async with serve(settings(), ROOM) as served:
        for name, value in (("logprobs", True), ("return_token_ids", True),
                            ("separate_reasoning", False)):  # fmt: skip
            answer = await served.chat(THOUGHT, include_reasoning=False, **{name: value})
            assert answer.status_code == 400 and answer.json()["error"]["param"] == name
        responses = await served.post(
            "/v1/responses", input=THOUGHT, include_reasoning=False,
            include=["message.output_text.logprobs"],
        )  # fmt: skip
    assert responses.json()["error"]["param"] == "include"
    async with serve(settings(reasoning_parser="none"), ROOM) as served:
        shown = await served.chat("Hi", include_reasoning=False, logprobs=True, max_tokens=1)
    assert shown.status_code == 200  # a model of which nothing is hidden


@pytest.mark.parametrize("reply", [f"{THOUGHT}Sure. {CALL}", THOUGHT[:-11], f"{THOUGHT}Yes."])
async def test_reasoning_may_be_streamed_in_one_piece(serve: Serve, reply: str) -> None:
    async with serve(settings(), ROOM) as served:
        response = await served.chat(reply, tools=[TOOL], stream=True, stream_reasoning=False)
        usual = await served.chat(reply, tools=[TOOL], stream=True)
        whole = await served.chat(reply, tools=[TOOL], stream_reasoning=False)
    deltas = [chunk["choices"][0]["delta"] for chunk in event_data(response.text)[:-1]]
    assert [each["reasoning"] for each in deltas if "reasoning" in each] == ["Hm."]
    contents = ["".join(_contents(answer.text)) for answer in (response, usual)]
    assert contents[0] == contents[1] == (whole.json()["choices"][0]["message"]["content"] or "")
    assert len(_contents(usual.text, "reasoning")) > 1


def _contents(text: str, name: str = "content") -> list[str]:
    deltas = [chunk["choices"][0]["delta"] for chunk in event_data(text)[:-1]]
    return [each[name] for each in deltas if name in each]


async def test_a_call_that_is_cut_off_ends_by_length(serve: Serve) -> None:
    async with serve(settings(), ROOM) as served:
        body = (await served.chat(CALL, tools=[TOOL], max_tokens=57)).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == '{"city": '


async def test_tokens_are_shown_with_the_parts(serve: Serve) -> None:
    async with serve(settings(), ROOM) as served:
        response = await served.chat(
            CALL, tools=[TOOL], stream=True, logprobs=True, return_token_ids=True
        )
    *chunks, _ = event_data(response.text)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    ids = [token for choice in choices for token in choice.get("token_ids", ())]
    entries = [e for c in choices if c["logprobs"] for e in c["logprobs"]["content"]]
    assert len(ids) == len(entries) == len(CALL) + 1


async def test_earlier_turns_reach_the_template(serve: Serve) -> None:
    template = (
        "{% for m in messages %}{{ m.role }}|{{ m.content }}|{{ m.reasoning_content }}|"
        "{% for c in m.tool_calls %}{{ c.id }}:{{ c.function.arguments.city }}{% endfor %}|"
        "{{ m.tool_call_id }};{% endfor %}{{ tools[0].function.name }}<|im_end|>"
    )
    called = {"id": "c1", "type": "function", "index": 0,
              "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}  # fmt: skip
    messages = [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": None, "tool_calls": [called], "reasoning": "Hm"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "sunny"}]},
    ]
    tools = [{**TOOL, "defer_loading": False}]
    async with serve(settings(chat_template=template), ROOM) as served:
        response = await served.post("/v1/chat/completions", messages=messages, tools=tools)
    said = response.json()["choices"][0]["message"]["content"]
    assert said == "user|Q|||;assistant||Hm|c1:Rome|;tool|sunny|||c1;get_weather"


@pytest.mark.parametrize(("template", "effort", "said"), [
    ("{{ reasoning_effort }}<|im_end|>", "high", "high"),
    ("{{ enable_thinking }}<|im_end|>", "none", "False"),
    ("{{ thinking }}<|im_end|>", "low", "True"),
])  # fmt: skip
async def test_effort_is_what_the_template_makes_of_it(
    serve: Serve, template: str, effort: str, said: str
) -> None:
    async with serve(settings(chat_template=template)) as served:
        body = (await served.chat(reasoning_effort=effort)).json()
    assert body["choices"][0]["message"]["content"] == said


@pytest.mark.parametrize(("template", "fields", "said"), [
    ("{{ reasoning_effort }}<|im_end|>", {"reasoning": {"effort": "low"}}, "low"),
    ("{{ enable_thinking }}<|im_end|>", {"reasoning": {"effort": "none"}}, "False"),
    ("{{ enable_thinking }}<|im_end|>", {"reasoning": {"enabled": False}}, "False"),
    ("{{ thinking }}<|im_end|>", {"reasoning": {"enable": True}}, "True"),
    ("{{ thinking }}<|im_end|>", {"thinking": {"type": "disabled"}}, "False"),
    ("{{ thinking is defined }}<|im_end|>", {"thinking": {"type": "adaptive"}}, "False"),
])  # fmt: skip
async def test_sglangs_words_for_thinking_say_the_same(
    serve: Serve, template: str, fields: dict[str, Any], said: str
) -> None:
    async with serve(settings(chat_template=template)) as served:
        body = (await served.chat(**fields)).json()
    assert body["choices"][0]["message"]["content"] == said


def allowed(*names: str, mode: str = "auto") -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": []}, "tools", "at least one"),
    ({"tools": [TOOL, TOOL]}, "tools", "same name"),
    ({"tools": [{"type": "web_search"}]}, "tools", "web_search"),
    ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools", "no name"),
    ({"tools": [{**TOOL, "defer_loading": True}]}, "tools", "at once"),
    ({"tool_choice": "required"}, "tool_choice", "needs tools"),
    ({"tool_choice": allowed("get_time"), "tools": [TOOL]}, "tool_choice", "not among"),
    ({"tool_choice": allowed("get_weather")}, "tool_choice", "not among"),
    ({"tool_choice": allowed(), "tools": [TOOL]}, "tool_choice", "at least one"),
    ({"functions": [FUNCTION], "tools": [TOOL]}, "functions", "exclude"),
    ({"functions": [FUNCTION], "tool_choice": "none"}, "tool_choice", "send function_call"),
    ({"functions": [FUNCTION, FUNCTION]}, "functions", "Two of the functions"),
    ({"functions": [FUNCTION], "function_call": {"name": "x"}}, "function_call", "not among"),
    ({"function_call": {"name": "x"}}, "function_call", "needs functions"),
    ({"messages": [{"role": "function", "content": ""}]}, "messages", "function's name"),
    ({"messages": [{"role": "user", "content": "", "function_call": {"name": "f"}}]},
     "messages", "function_call"),
    ({"tool_choice": "perhaps", "tools": [TOOL]}, "tool_choice", "perhaps"),
    (
        {"tool_choice": {"type": "function", "function": {"name": "x"}}, "tools": [TOOL]},
        "tool_choice",
        "not among",
    ),
    ({"reasoning_effort": "high"}, "reasoning_effort", "no reasoning effort"),
    ({"reasoning": {"effort": "high"}}, "reasoning", "leave out reasoning."),
    ({"reasoning": {"enabled": True}}, "reasoning", "cannot be told whether to think"),
    ({"thinking": {"type": "enabled"}}, "thinking", "leave out thinking."),
    ({"thinking": {"type": "on"}}, "thinking", "one of 'adaptive', 'disabled', 'enabled'; got"),
    ({"reasoning_effort": "low", "reasoning": {"effort": "high"}}, "reasoning", "send one"),
    ({"thinking": {"type": "disabled"}, "reasoning": {"enabled": True}}, "reasoning", "send one"),
    (
        {"messages": [{"role": "user", "content": "", "tool_call_id": "x"}]},
        "messages",
        "role tool",
    ),
    ({"messages": [{"role": "tool", "content": "", "tool_calls": [
        {"id": "", "function": {"name": "f", "arguments": "{}"}}]}]}, "messages", "assistant"),
    ({"messages": [{"role": "assistant", "content": "", "tool_calls": [
        {"id": "", "function": {"name": "f", "arguments": "[1]"}}]}]}, "messages", "JSON object"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param", "sentence"), REFUSED)
async def test_what_cannot_be_offered_is_refused(
    serve: Serve, fields: dict[str, Any], param: str, sentence: str
) -> None:
    template = "{{ messages[0].content }}{{ messages[0].tool_calls[0].function.arguments.a }}"
    async with serve(settings(chat_template=template)) as served:
        response = await served.chat(**fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param and sentence in error["message"], error


async def test_a_model_whose_calls_nobody_can_read_is_not_offered_tools(serve: Serve) -> None:
    async with serve(settings(tool_call_parser="auto")) as served:
        unknown = await served.chat(tools=[TOOL])
        allowed = await served.chat(tools=[TOOL], tool_choice="none")
    assert unknown.status_code == 400 and "--tool-call-parser" in unknown.text
    assert allowed.status_code == 200
    async with serve(settings(enable_auto_tool_choice=False)) as served:
        switched_off = await served.chat(tools=[TOOL])
    assert switched_off.status_code == 400 and "--no-enable-auto-tool-choice" in switched_off.text


async def test_special_tokens_are_kept_for_formats_made_of_them(serve: Serve) -> None:
    reply = '[TOOL_CALLS]get_weather[ARGS]{"city": "Rome"}'
    async with serve(settings(tool_call_parser="mistral"), ROOM) as served:
        body = (await served.chat(reply, tools=[TOOL])).json()
        params = served.core.added[0].params
    assert json.loads(body["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"])
    assert len(body["choices"][0]["message"]["tool_calls"][0]["id"]) == 9
    assert params is not None


async def test_functions_are_the_tools_of_before(serve: Serve) -> None:
    call = {"name": "get_weather", "arguments": '{"city": "Rome"}'}
    asked = {"functions": [FUNCTION], "function_call": "auto"}
    async with serve(settings(), ROOM) as served:
        whole = (await served.chat(f"Sure. {CALL}{CALL}", **asked)).json()
        stream = await served.chat(f"Sure. {CALL}{CALL}", **asked, stream=True)
        plain = (await served.chat(CALL, functions=[FUNCTION], function_call="none")).json()
        neither = (await served.chat("Hi", functions=[], function_call="auto")).json()
        named = await served.chat(
            "a", functions=[FUNCTION], function_call={"name": "get_weather"}, max_tokens=1
        )
        assert named.status_code == 200 and '"city"' in served.core.added[-1].grammar
    [choice] = whole["choices"]
    assert choice["finish_reason"] == "function_call" and "tool_calls" not in choice["message"]
    assert (choice["message"]["content"], choice["message"]["function_call"]) == ("Sure.", call)
    choices = [each for chunk in event_data(stream.text)[:-1] for each in chunk["choices"]]
    pieces = [c["delta"]["function_call"] for c in choices if "function_call" in c["delta"]]
    assert pieces[0]["name"] == "get_weather" and choices[-1]["finish_reason"] == "function_call"
    assert "".join(each["arguments"] for each in pieces) == call["arguments"]
    assert not any("tool_calls" in each["delta"] for each in choices)
    for body in (plain, neither):
        assert "function_call" not in body["choices"][0]["message"]


async def test_turns_with_functions_are_turns_with_tools(serve: Serve) -> None:
    template = (
        "{% for m in messages %}{{ m.role }}|{{ m.name }}|{{ m.tool_call_id }}|"
        "{% for c in m.tool_calls %}{{ c.id }}:{{ c.function.arguments.city }}{% endfor %};"
        "{% endfor %}{{ tools[0].function.name }}<|im_end|>"
    )
    called = {"name": "get_weather", "arguments": '{"city": "Rome"}'}
    messages = [
        {"role": "assistant", "content": None, "function_call": called},
        {"role": "function", "name": "get_weather", "content": "sunny"},
    ]
    async with serve(settings(chat_template=template), ROOM) as served:
        response = await served.post(
            "/v1/chat/completions", messages=messages, functions=[FUNCTION]
        )
    said = response.json()["choices"][0]["message"]["content"]
    assert said == "assistant|||call00001:Rome;tool|get_weather|call00001|;get_weather"


@pytest.mark.parametrize("mode", ["auto", "required"])
async def test_of_several_tools_some_are_allowed(serve: Serve, mode: str) -> None:
    """The model is told of no others; where a call is required, it can be of no other."""
    template = "{% for t in tools %}{{ t.function.name }};{% endfor %}"
    choice = allowed("get_time", mode=mode)
    async with serve(settings(chat_template=template), ROOM) as served:
        answer = await served.chat(tools=[TOOL, OTHER], tool_choice=choice, max_tokens=1)
        [request] = served.core.added
    assert answer.status_code == 200, answer.text
    assert bytes_of(request.prompt_token_ids) == "get_time;"
    assert "get_weather" not in request.grammar
    assert ("get_time" in request.grammar) == (mode == "required")


def bytes_of(token_ids: list[int]) -> str:
    alphabet = sorted(ByteLevel.alphabet())
    return "".join(alphabet[token] for token in token_ids)
