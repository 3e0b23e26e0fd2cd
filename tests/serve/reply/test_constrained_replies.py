"""Constraints where a reply is more than its answer: reasoning before it, calls instead of it."""

import msgspec
import pytest

from engine.config import EngineConfig
from engine.grammar.matcher import compile_grammar, make_vocabulary
from engine.grammar.params import StructuredOutputsParams
from engine.grammar.source import grammar_source
from engine.tokenizers.tokenizer import Tokenizer
from models.demo import DEMO_FOLDER
from serve.protocol.tools import FunctionDefinition, Tool
from serve.reply.after_reasoning import after_reasoning
from serve.reply.forced import forced_schema, required_calls
from serve.reply.format import ToolFormat
from serve.reply.harmony import Harmony
from serve.reply.reasoning import ReasoningFormat
from serve.settings import ServerSettings
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio

TOKENIZER = Tokenizer.load(DEMO_FOLDER)
VOCABULARY = make_vocabulary(TOKENIZER, TOKENIZER.vocab_size, [2])
WEATHER = {
    "type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"],
    "additionalProperties": False,
}  # fmt: skip
TOOL = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
OTHER = {"type": "function", "function": {"name": "now"}}
NAMED = {"type": "function", "function": {"name": "weather"}}
ROOM = EngineConfig(max_model_len=1024)
THINK = ReasoningFormat("<think>", "</think>")


def accepts(source: str, text: str) -> bool:
    """Letter by letter: the served model has no token for <tool_call>, as the demo has."""
    matcher = compile_grammar(VOCABULARY, source)
    ids = [id for letter in text for id in TOKENIZER.encode(letter, add_special_tokens=False)]
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


ROME, OSLO = (f'{{"name": "weather", "parameters": {{"city": "{c}"}}}}' for c in ("Rome", "Oslo"))


@pytest.mark.parametrize(
    ("options", "replies", "others"),
    [
        (
            {"tool_choice": "required"},
            [f"[{ROME}]", f'[{ROME}, {OSLO}, {{"name": "now", "parameters": {{}}}}]'],
            ["[]", "Hello", ROME, '[{"name": "x", "parameters": {}}]'],
        ),
        ({"tool_choice": "required", "parallel_tool_calls": False}, [f"[{ROME}]"],
         [f"[{ROME}, {OSLO}]"]),
        ({"tool_choice": NAMED}, ['{"city": "Rome"}'], ["{}", ROME]),
    ],
)  # fmt: skip
async def test_a_call_that_is_demanded_cannot_be_anything_else(
    serve: Serve, options, replies, others
) -> None:
    async with serve() as served:
        answer = await served.chat("a", max_tokens=3, tools=[TOOL, OTHER], **options)
        assert answer.is_success, answer.text
        [request] = served.core.added
    assert [text for text in replies if not accepts(request.grammar, text)] == []
    assert [text for text in others if accepts(request.grammar, text)] == []


async def test_what_is_wrong_with_tools_is_named(serve: Serve) -> None:
    bad = {"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}
    async with serve() as served:
        answer = await served.chat("a", tools=[bad], tool_choice="required")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tools")
        for choice in ("required", NAMED):
            answer = await served.chat("a", tools=[TOOL], tool_choice=choice, regex="a")
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "regex")
        answer = await served.chat(
            "a", tools=[TOOL], tool_choice="none", response_format={"type": "json_object"},
            max_tokens=2,
        )  # fmt: skip
        assert answer.is_success and served.core.added[-1].grammar


STRICT = {"type": "function", "function": {**TOOL["function"], "strict": True}}
HERMES = ServerSettings(
    chat_template="{{ messages[-1].content }}<|im_end|>", tool_call_parser="hermes"
)
THOUGHTFUL = msgspec.structs.replace(HERMES, reasoning_parser="qwen3")
WANTED = {"type": "json_schema", "json_schema": {"name": "x", "schema": WEATHER}}
CALL = '<tool_call>{{"name": "{}", "arguments": {}}}</tool_call>'
WELL, WRONG = CALL.format("weather", '{"city": "Rome"}'), CALL.format("weather", '{"city": 1}')
NOW = CALL.format("now", '{"any": 1}')


@pytest.mark.parametrize(
    ("options", "replies", "others"),
    [
        ({"tools": [STRICT, OTHER]}, ["Hello.", f"So: {WELL} {NOW}"], [WRONG, "<tool_call>x"]),
        (
            {"tools": [TOOL, OTHER], "response_format": WANTED},
            ['{"city": "Oslo"}', f"{WELL}\n{NOW}", WRONG], ["Hello.", f"So: {WELL}", "{}"],
        ),
        (
            {"tools": [STRICT], "response_format": WANTED, "parallel_tool_calls": False},
            ['{"city": "Oslo"}', WELL], [WRONG, WELL + WELL],
        ),
        ({"tools": [TOOL], "guided_choice": ["x", "y"]}, [WELL, "x"], ["z"]),
        (
            {"tools": [TOOL], "tool_choice": "required", "response_format": WANTED},
            [f"[{ROME}]"], ['{"city": "Rome"}'],
        ),
        (
            {"tools": [TOOL], "response_format": {"type": "structural_tag", "format": {
                "type": "const_string", "value": "k"}}},
            ["k"], [WELL],
        ),
    ],
)  # fmt: skip
async def test_a_call_that_is_chosen_is_bound(serve: Serve, options, replies, others) -> None:
    for settings, before in ((HERMES, ""), (THOUGHTFUL, "<think>so</think>")):
        async with serve(settings) as served:
            answer = await served.chat("a", max_tokens=3, **options)
            assert answer.is_success, answer.text
            [request] = served.core.added
        assert [text for text in replies if not accepts(request.grammar, before + text)] == []
        assert [text for text in others if accepts(request.grammar, before + text)] == []


@pytest.mark.parametrize("before", ["", "<think>[weather(</think>\n\n"])
async def test_python_calls_behind_thoughts_are_bound(serve: Serve, before: str) -> None:
    call = '[weather(city="Rome"), now(a=1)]'
    wrong = [call.replace("Rome", "rome"), "[weather()]", f"{call} Hm."]
    settings = msgspec.structs.replace(
        THOUGHTFUL if before else HERMES, tool_call_parser="pythonic"
    )
    async with serve(settings) as served:
        for options, replies, others in (
            ({}, [call, "Hello.", "[so"], wrong),
            ({"response_format": WANTED}, [call, '{"city": "Rome"}'], [*wrong, "Hello."]),
        ):
            answer = await served.chat("a", max_tokens=3, tools=[STRICT, OTHER], **options)
            assert answer.is_success, answer.text
            grammar = served.core.added[-1].grammar
            assert [text for text in replies if not accepts(grammar, before + text)] == []
            assert [text for text in others if accepts(grammar, before + text)] == []


async def test_either_of_both_is_shown_as_what_it_is(serve: Serve) -> None:
    """The scripted core says what it was told, which begins with a call or does not."""
    options = {"tools": [TOOL], "response_format": WANTED}
    async with serve(HERMES, ROOM) as served:
        call = (await served.chat(WELL, **options)).json()
        answer = (await served.chat(f'{{"city": "{WELL}"}}', **options)).json()
    [choice] = call["choices"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "stop" and "tool_calls" not in choice["message"]
    assert choice["message"]["content"] == f'{{"city": "{WELL}"}}'


async def test_what_cannot_be_bound_is_refused_by_name(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbound = ToolFormat(("unbound",), required_calls, marks=())  # all that there are can be
    tag = {"type": "structural_tag", "structures": [], "triggers": []}
    bad = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"not": {}}}}
    properties = {"a": {"type": "integer"}, "b": {"type": "object", "not": {}}}
    within = {
        "type": "function", "function": {
            "name": "g", "strict": True, "parameters": {"properties": properties, "required": ["a"]}
        },
    }  # fmt: skip
    listed = {
        "type": "function",
        "function": {"name": "g", "strict": True, "parameters": {"type": ["array"]}},
    }
    monkeypatch.setattr("serve.model.tool_format", lambda *_: unbound)
    async with serve(HERMES) as served:
        for options, param in (
            ({"tools": [STRICT]}, "tools"),
            ({"tools": [TOOL], "response_format": WANTED}, "response_format"),
        ):
            error = (await served.chat("a", **options)).json()["error"]
            assert error["param"] == param and "--tool-call-parser unbound" in error["message"]
        assert (await served.chat("a", tools=[TOOL], max_tokens=2)).is_success
        assert (await served.chat("a", tools=[STRICT], tool_choice="none", max_tokens=2)).is_success
    monkeypatch.undo()
    async with serve(HERMES) as served:
        for options, param, says in (
            ({"tools": [listed]}, "tools", "tools: g: the parameters of a tool"),
            ({"tools": [STRICT, bad]}, "tools", 'tools: f: a schema has "not"'),
            ({"tools": [OTHER, within]}, "tools", 'tools: g.b: a schema has "not"'),
            ({"tools": [TOOL], "regex": "a"}, "regex", "tool_choice none"),
            ({"tools": [STRICT], "response_format": tag}, "response_format", "leave out strict"),
        ):
            error = (await served.chat("a", **options)).json()["error"]
            assert error["param"] == param and says in error["message"], error


def test_tools_keep_definitions_of_their_own() -> None:
    """pydantic writes a model within a model as a reference to the schema's own $defs."""
    day = {"properties": {"day": {"$ref": "#/$defs/Day"}, "$ref": {"enum": ["#"]}},
           "required": ["day"]}  # fmt: skip
    tools = [
        Tool(
            "function", FunctionDefinition(name, parameters={**day, "$defs": {"Day": {"enum": e}}})
        )
        for name, e in (("a", [1]), ("b", ["#/$defs/Day"]))
    ]
    schema = forced_schema(tools, "required", one_call=False)
    source = grammar_source(StructuredOutputsParams(json=schema), {})
    call = '[{{"name": "{}", "parameters": {{"day": {}}}}}]'
    assert accepts(source, call.format("a", 1))
    assert accepts(source, call.format("b", '"#/$defs/Day"'))
    assert not accepts(source, call.format("b", 1))


async def test_the_other_apis(serve: Serve) -> None:
    schema = {"type": "json_schema", "name": "x", "schema": WEATHER, "strict": True}
    async with serve() as served:
        params = {"max_new_tokens": 2, "json_schema": '{"type": "null"}'}
        answer = await served.post("/generate", text="a", sampling_params=params)
        assert answer.is_success and accepts(served.core.added[-1].grammar, "null")
        body = {"input": "a", "max_output_tokens": 2}
        answer = await served.post("/v1/responses", **body, text={"format": schema})
        assert answer.is_success, answer.text
        assert accepts(served.core.added[-1].grammar, '{"city": "Oslo"}')
        answer = await served.post("/v1/responses", **body, text={"format": {"type": "text"}})
        assert answer.is_success and served.core.added[-1].grammar == ""
        for wrong, param in (
            ({"type": "xml"}, "text.format.type"),
            ({"type": "json_schema", "name": "x", "schema": {}, "extra": 1}, "text.format.extra"),
        ):
            answer = await served.post("/v1/responses", **body, text={"format": wrong})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("reasoning", "prompt", "replies", "others"),
    [
        (
            THINK, "assistant\n",
            ['<think>so: {"city"</think>\n\n{"city": "Rome"}', '{"city": "Rome"}'],
            ["<think>so", "so</think>{}", '<think></think>{"city": "Paris"}'],
        ),
        (THINK, "assistant\n<think>\n", ['so</think>{"city": "Rome"}'], ['{"city": "Rome"}']),
        (
            THINK, "<think>\n\n</think>\n\n",
            ['{"city": "Rome"}'], ['so</think>{"city": "Rome"}', '<think>so</think>{"city"'],
        ),
        (
            ReasoningFormat("<think>", "</think>", implied=True), "assistant\n",
            ['<think>so</think>{"city": "Rome"}', 'so</think>{"city": "Rome"}'],
            ['{"city": "Rome"}'],
        ),
        (
            Harmony(), "assistant",
            ['<|channel|>final<|message|>{"city": "Rome"}',
             "<|channel|>analysis<|message|>so<|end|>"
             '<|start|>assistant<|channel|>final<|message|>{"city": "Rome"}'],
            ['{"city": "Rome"}', "<|channel|>analysis<|message|>so<|end|>"],
        ),
    ],
)  # fmt: skip
def test_reasoning_is_free_and_the_answer_is_not(reasoning, prompt, replies, others) -> None:
    wanted = StructuredOutputsParams(json=WEATHER)
    whole = after_reasoning(reasoning, prompt, wanted.as_format())
    tag = StructuredOutputsParams(structural_tag={"format": whole})
    source = grammar_source(tag, TOKENIZER.mark_ids)
    assert [text for text in replies if not accepts(source, text)] == []
    assert [text for text in others if accepts(source, text)] == []


@pytest.mark.parametrize(
    ("options", "reply", "other"),
    [
        ({"json": WEATHER, "disable_any_whitespace": True}, '{"city":"Rome"}', '{"city": "Rome"}'),
        ({"json": WEATHER, "whitespace_pattern": "_"}, '{"city"_:"Rome"}', '{"city" :"Rome"}'),
        ({"json": '{"type": "object"}', "disable_additional_properties": True}, "{}", '{"a":1}'),
        ({"json_object": True}, '{"a": [1]}', "[1]"),
        ({"regex": "a/b|c"}, "a/b", "a/c"),
        ({"choice": ["x", 'y"']}, 'y"', "y"),
        ({"grammar": 'root ::= "a"+'}, "aa", "b"),
        ({"structural_tag": '{"format": {"type": "const_string", "value": "k"}}'}, "k", "kk"),
    ],
    ids=str,
)
def test_every_constraint_may_come_after_reasoning(options, reply, other) -> None:
    part = StructuredOutputsParams(**options).as_format()
    whole = after_reasoning(THINK, "<think>", part)
    tag = StructuredOutputsParams(structural_tag={"format": whole})
    source = grammar_source(tag, {})
    assert accepts(source, f"well</think> {reply}") and not accepts(source, f"well</think> {other}")
