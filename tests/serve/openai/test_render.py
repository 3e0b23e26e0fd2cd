"""/render and /derender: both ends of a chat or a completion, without the model between them."""

from typing import Any

import pytest

from serve.settings import ServerSettings
from tests.serve.served import Serve, Served, event_data

pytestmark = pytest.mark.anyio
CHAT, COMPLETIONS, TOKENS = "/v1/chat/completions", "/v1/completions", "/inference/v1/generate"
TURNS = [{"role": "user", "content": "Hi"}]
OPTIONS: list[dict[str, Any]] = [
    {"max_tokens": 6},
    {"max_tokens": 6, "n": 2, "temperature": 1.0, "seed": 3, "logprobs": True, "top_logprobs": 2},
    {"max_tokens": 6, "stop": ["er"]},
    {"max_tokens": 6, "stop": ["er"], "include_stop_str_in_output": True},
    {"max_tokens": 6, "stop_token_ids": [ord("\n")]},
    {"max_tokens": 6, "logit_bias": {"5": 2.0}, "bad_words": ["x"], "stop_regex": "s.r"},
    {"response_format": {"type": "json_object"}, "max_tokens": 3},
]


async def post(served: Served, path: str, **body: Any) -> Any:
    answer = await served.post(path, **body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("options", OPTIONS)
async def test_a_chat_may_go_through_token_ids(serve: Serve, options: dict[str, Any]) -> None:
    asked = {"messages": TURNS, "model": "tiny", **options}
    async with serve() as served:
        whole = await post(served, CHAT, **asked)
        rendered = await post(served, f"{CHAT}/render", **asked)
        answer = await post(served, TOKENS, **rendered)
        shown = await post(
            served, f"{CHAT}/derender", generate_response=answer, chat_request=asked, model="tiny"
        )
        added = served.core.added
        direct, through = added[0], added[len(added) // 2]
    assert rendered["request_id"].startswith("chatcmpl-") and answer["request_id"] == shown["id"]
    assert rendered["token_ids"] == direct.prompt_token_ids == through.prompt_token_ids
    assert through.params == direct.params and through.grammar == direct.grammar
    for each in (whole, shown):
        del each["id"], each["created"]
    assert shown == whole


@pytest.mark.parametrize(("path", "asked"), [
    ("/v1/responses", {"input": "Hi", "max_output_tokens": 4, "previous_response_id": "before"}),
    ("/v1/messages", {"model": "tiny", "messages": TURNS, "max_tokens": 4, "top_k": 3}),
])  # fmt: skip
async def test_other_conversations_have_their_ids_too(
    serve: Serve, path: str, asked: dict[str, Any]
) -> None:
    async with serve() as served:
        await post(served, "/v1/responses", input="So", request_id="before", max_output_tokens=2)
        await post(served, path, **asked)
        rendered = await post(served, f"{path}/render", **asked)
        await post(served, TOKENS, **rendered)
        wrong = await served.post(f"{path}/render", **{**asked, "temperature": -1})
        _, direct, through = served.core.added
    assert rendered["token_ids"] == direct.prompt_token_ids == through.prompt_token_ids
    assert through.params == direct.params and wrong.status_code == 400


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_stream_may_go_through_token_ids(
    serve: Serve, path: str, options: dict[str, Any]
) -> None:
    if path == COMPLETIONS:
        scored = {"logprobs": 2} if options.get("logprobs") else {}
        options = {name: options[name] for name in options.keys() - {"top_logprobs"}} | scored
    subject = {"messages": TURNS} if path == CHAT else {"prompt": "Hi"}
    asked = {**subject, **options, "stream": True}
    counted = {"stream_options": {"include_usage": True}}
    async with serve() as served:
        *direct, _ = event_data((await served.post(path, **asked, **counted)).text)
        [rendered] = _as_list(await post(served, f"{path}/render", **asked, **counted))
        *streamed, _ = event_data((await served.post(TOKENS, **rendered)).text)
        states: dict[int, Any] = {}
        shown = []
        for chunk in streamed:
            index = chunk["choices"][0]["index"] if chunk["choices"] else -1
            asked_for = {"chat_request" if path == CHAT else "completion_request": asked}
            made = await post(
                served, f"{path}/derender", stream=True, generate_chunk=chunk,
                stream_state=states.get(index), **asked_for,
            )  # fmt: skip
            states[index] = made["stream_state"]
            shown.append(made["chunk"])
    assert len(shown) == len(streamed) > 2
    assert {each["id"] for each in shown} == {streamed[0]["request_id"]}
    assert shown[-1]["usage"] == direct[-1]["usage"]
    for index in range(options.get("n", 1)):
        assert _said(shown, index) == _said(direct, index)


def _as_list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def _said(chunks: list[dict[str, Any]], index: int) -> dict[str, Any]:
    """What all chunks say of a choice."""
    said: dict[str, Any] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] == index:
                scores = (choice.get("logprobs") or {}).items()
                pieces = {**choice, **choice.get("delta", {})}
                pieces |= {f"scored {name}": each for name, each in scores}
                for name in pieces.keys() - {"index", "delta", "logprobs"}:
                    before, value = said.get(name), pieces[name]
                    if value is not None:
                        said[name] = value if before is None else before + value
    return said


async def test_several_prompts_go_through_token_ids(serve: Serve) -> None:
    asked = {"prompt": ["ab", "c"], "n": 2, "max_tokens": 3, "logprobs": 1}
    async with serve() as served:
        whole = await post(served, COMPLETIONS, **asked)
        rendered = await post(served, f"{COMPLETIONS}/render", **asked)
        answers = [await post(served, TOKENS, **each) for each in rendered]
        shown = await post(
            served, f"{COMPLETIONS}/derender", generate_responses=answers, completion_request=asked
        )
    assert [len(each["token_ids"]) for each in rendered] == [2, 1]
    assert len({each["request_id"] for each in rendered}) == 2
    for each in (whole, shown):
        del each["id"], each["created"]
    assert shown == whole


async def test_nothing_is_generated(serve: Serve) -> None:
    salted = {"cache_salt": "s", "extra_key": "e"}
    settings = ServerSettings(api_keys=("k",), isolate_prefix_cache=True)
    async with serve(settings) as served:
        served.http.headers["authorization"] = "Bearer k"
        usage = {"stream": True, "stream_options": {"include_usage": True}}
        body = {"messages": TURNS, **salted, **usage, "return_prompt_text": True}
        rendered = await post(served, f"{CHAT}/render", **body)
        again = await served.post(CHAT, messages=TURNS, **salted, max_tokens=1)
        assert again.status_code == 200
        [added] = served.core.added
        sent = {**rendered, "sampling_params": {"max_tokens": 1}, "stream": False}
        text = sent.pop("prompt_text")
        del sent["stream_options"]
        await post(served, TOKENS, **sent)
        other = served.core.added[1]
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert rendered["stream"] is True and rendered["cache_salt"] == "1:se"
    assert rendered["sampling_params"]["temperature"] == 0.5
    assert rendered["sampling_params"]["max_tokens"] == 128 - len(rendered["token_ids"])
    assert other.cache_salt == added.cache_salt


async def test_tools_and_reasoning_are_taken_apart(serve: Serve) -> None:
    text = '<think>hm</think><tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    settings = ServerSettings(
        tool_call_parser="hermes", enable_auto_tool_choice=True, reasoning_parser="qwen3"
    )
    async with serve(settings) as served:
        ids = (await post(served, "/tokenize", prompt=text))["tokens"]
        answer = {"choices": [{"token_ids": ids, "finish_reason": "stop"}], "usage": None}
        shown = await post(
            served,
            f"{CHAT}/derender",
            generate_response=answer,
            chat_request={"messages": TURNS, "tools": [tool], "stream": True},
            prompt_tokens=7,
        )
        plain = await post(
            served, f"{CHAT}/derender", generate_response=answer, prompt_token_ids=[5, 6]
        )
        demands = {"messages": TURNS, "response_format": {"type": "json_object"}}
        refused = await served.post(f"{CHAT}/render", **demands)
        state, pieces = None, []
        for place, token in enumerate(ids):
            ended = "stop" if place == len(ids) - 1 else None
            made = await post(
                served, f"{CHAT}/derender", stream=True, stream_state=state,
                generate_chunk={"choices": [{"token_ids": [token], "finish_reason": ended}]},
                chat_request={"messages": TURNS, "tools": [tool]},
            )  # fmt: skip
            state, [piece] = made["stream_state"], made["chunk"]["choices"]
            pieces.append(piece["delta"])
    calls = [call for each in pieces for call in each.get("tool_calls", ())]
    assert "".join(call["function"].get("arguments") or "" for call in calls) == '{"a": 1}'
    assert (
        len([call for call in calls if "id" in call]) == 1 and calls[0]["function"]["name"] == "f"
    )
    assert "".join(each.get("reasoning", "") for each in pieces) == "hm"
    assert [each.get("role") for each in pieces] == ["assistant", *[None] * (len(ids) - 1)]
    assert piece["finish_reason"] == "tool_calls"
    [choice] = shown["choices"]
    assert choice["message"]["reasoning"] == "hm" and choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "f"
    assert shown["usage"]["total_tokens"] == 7 + len(ids)
    assert plain["choices"][0]["message"]["reasoning"] == "hm"
    assert plain["usage"]["prompt_tokens"] == 2
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "response_format"


ONE = {"choices": [{"token_ids": [5]}]}
TWO = {"choices": [{"token_ids": [5]}, {"token_ids": [5], "index": 1}]}
ENDED = [{"token_ids": [5], "finish_reason": "stop"}]
STREAMED = {"stream": True, "generate_chunk": ONE, "prompt_token_ids": [5]}
SCORED = {"token": "x", "logprob": -1.0, "bytes": [], "top_logprobs": []}
SCORED |= {"top_logprobs": [{"token": "x", "logprob": -1.0, "bytes": []}]}


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (f"{CHAT}/render", {}, "messages"),
        (f"{CHAT}/render", {"messages": TURNS, "use_beam_search": True}, "use_beam_search"),
        (f"{CHAT}/render", {"messages": TURNS, "temperature": -1}, "temperature"),
        (f"{COMPLETIONS}/render", {"prompt": "a", "echo": True}, "echo"),
        (f"{COMPLETIONS}/render", {"prompt": "a", "best_of": 2}, "best_of"),
        (f"{CHAT}/derender", {}, "generate_response"),
        (f"{CHAT}/derender", {"generate_response": ONE}, "chat_request"),
        (f"{CHAT}/derender", {"generate_response": ONE, "chat_request": {}}, "messages"),
        (
            f"{CHAT}/derender",
            {"generate_response": {"choices": []}, "prompt_token_ids": [5]},
            "generate_response",
        ),
        (
            f"{CHAT}/derender",
            {"generate_response": ONE, "prompt_token_ids": [5], "stream": True},
            "generate_chunk",
        ),
        (
            f"{CHAT}/derender",
            {"generate_chunk": ONE, "generate_response": ONE, "prompt_token_ids": [5]},
            "generate_chunk",
        ),
        (
            f"{CHAT}/derender",
            {"generate_response": ONE, "prompt_token_ids": [5], "stream_state": {}},
            "stream_state",
        ),
        (
            f"{CHAT}/derender",
            {**STREAMED, "generate_chunk": {"choices": [{"token_ids": [5], "index": 1}]}},
            "generate_chunk",
        ),
        (f"{CHAT}/derender", {**STREAMED, "generate_chunk": TWO}, "generate_chunk"),
        (f"{CHAT}/derender", {**STREAMED, "stream_state": {"pieces": ENDED}}, "stream_state"),
        (
            f"{CHAT}/derender",
            {**STREAMED, "stream_state": {"pieces": [{"index": 1, "token_ids": []}]}},
            "stream_state",
        ),
        (
            f"{CHAT}/derender",
            {**STREAMED, "stream_state": {"pieces": [{"token_ids": [5] * 128}]}},
            "token_ids",
        ),
        (
            f"{COMPLETIONS}/derender",
            {**STREAMED, "prompt_token_ids": [[5], [6]]},
            "generate_responses",
        ),
        (
            f"{CHAT}/derender",
            {"generate_response": ONE, "chat_request": {"messages": TURNS, "wrong": 1}},
            "wrong",
        ),
        (
            f"{CHAT}/derender",
            {"generate_response": ONE, "chat_request": {"messages": TURNS, "logprobs": True}},
            "logprobs",
        ),
        (
            f"{CHAT}/derender",
            {
                "generate_response": {
                    "choices": [{"token_ids": [5], "logprobs": {"content": [SCORED]}}]
                },
                "chat_request": {"messages": TURNS, "logprobs": True, "top_logprobs": 1},
            },
            "logprobs",
        ),
        (
            f"{CHAT}/derender",
            {"generate_response": {"choices": [{"token_ids": [-1]}]}, "prompt_token_ids": [5]},
            "token_ids",
        ),
        (
            f"{CHAT}/derender",
            {"generate_response": {"choices": [{"token_ids": [5] * 999}]}, "prompt_token_ids": [5]},
            "token_ids",
        ),
        (
            f"{CHAT}/derender",
            {"generate_response": ONE, "prompt_token_ids": [5], "prompt_tokens": 2**70},
            "prompt_tokens",
        ),
        (
            f"{COMPLETIONS}/derender",
            {"generate_responses": [ONE], "prompt_token_ids": [[5]], "prompt_tokens": [1, 2]},
            "prompt_tokens",
        ),
        (f"{COMPLETIONS}/derender", {"generate_responses": [ONE]}, "completion_request"),
        (
            f"{COMPLETIONS}/derender",
            {"generate_responses": [ONE], "prompt_token_ids": [[5], [6]]},
            "generate_responses",
        ),
        (
            f"{COMPLETIONS}/derender",
            {"generate_responses": [{"choices": []}], "prompt_token_ids": [[5]]},
            "generate_responses",
        ),
    ],
)
async def test_wrong_requests_name_their_field(
    serve: Serve, path: str, fields: dict[str, Any], param: str
) -> None:
    async with serve() as served:
        answer = await served.post(path, **fields)
        assert not served.core.added
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param, answer.text
