"""/parse_function_call and /separate_reasoning: SGLang's parsers by themselves."""

from typing import Any

import pytest

from serve.settings import ServerSettings
from tests.serve.reply.test_tools import CALL, OTHER, TOOL
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio
ROME = {"name": "get_weather", "parameters": '{"city": "Rome"}'}
SETTINGS = ServerSettings(tool_call_parser="hermes", reasoning_parser="qwen3")


async def test_calls_are_found_in_a_text(serve: Serve) -> None:
    asked: dict[str, Any] = {"text": f"Sure. {CALL}", "tools": [OTHER, TOOL]}
    python = {"text": "[get_time()]", "tools": [OTHER], "tool_call_parser": "pythonic"}
    async with serve(SETTINGS) as served:
        own = (await served.post("/parse_function_call", **asked)).json()
        other = (await served.post("/parse_function_call", **python)).json()
        none = (await served.post("/parse_function_call", text=CALL)).json()
    assert own == {"normal_text": "Sure.", "calls": [{"tool_index": 1, **ROME}]}
    time = {"tool_index": 0, "name": "get_time", "parameters": "{}"}
    assert other == {"normal_text": "", "calls": [time]}
    assert none["calls"] == [{"tool_index": -1, **ROME}]


async def test_reasoning_is_parted_from_the_rest(serve: Serve) -> None:
    path = "/separate_reasoning"
    async with serve(SETTINGS) as served:
        own = (await served.post(path, text="<think>\nHm.\n</think>\n\nYes.")).json()
        named = await served.post(path, text="Hm.</think>Yes.", reasoning_parser="deepseek-r1")
        plain = (await served.post(path, text="Yes.")).json()
    assert own == named.json() == {"reasoning_text": "Hm.", "text": "Yes."}
    assert plain == {"reasoning_text": "", "text": "Yes."}


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/parse_function_call", {}, "text"),
        ("/parse_function_call", {"text": "a", "tool_call_parser": "hermse"}, "tool_call_parser"),
        ("/parse_function_call", {"text": "a"}, "tool_call_parser"),
        ("/parse_function_call", {"text": "a", "tools": [TOOL, TOOL]}, "tools"),
        ("/separate_reasoning", {}, "text"),
        ("/separate_reasoning", {"text": "a", "reasoning_parser": "x"}, "reasoning_parser"),
        ("/separate_reasoning", {"text": "a", "reasoning_parser": "none"}, "reasoning_parser"),
        ("/separate_reasoning", {"text": "a", "return_blocks": True}, "return_blocks"),
    ],
)
async def test_what_is_wrong_is_named(
    serve: Serve, path: str, fields: dict[str, Any], param: str
) -> None:
    async with serve() as served:
        answer = await served.post(path, **fields)
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["param"] == param and "--" not in error["message"]
