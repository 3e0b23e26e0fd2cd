"""Constraints where a reply is more than its answer: reasoning before it, calls instead of it."""

import pytest

from engine.grammar.matcher import compile_grammar, make_vocabulary
from engine.grammar.params import StructuredOutputsParams
from engine.grammar.source import grammar_source
from engine.tokenizer import Tokenizer
from models.demo import DEMO_FOLDER
from serve.reply.after_reasoning import after_reasoning
from serve.reply.harmony import HarmonyReasoning
from serve.reply.reasoning import ReasoningFormat
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
THINK = ReasoningFormat("<think>", "</think>")


def accepts(source: str, text: str) -> bool:
    matcher = compile_grammar(VOCABULARY, source)
    ids = TOKENIZER.encode(text, add_special_tokens=False)
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
            answer = await served.chat(
                "a", tools=[TOOL], tool_choice=choice, response_format={"type": "json_object"}
            )
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == "response_format"
        answer = await served.chat(
            "a", tools=[TOOL], tool_choice="none", response_format={"type": "json_object"},
            max_tokens=2,
        )  # fmt: skip
        assert answer.is_success and served.core.added[-1].grammar


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
            ({"type": "json_schema", "name": "x", "schema": {}, "extra": 1}, "text.format"),
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
            HarmonyReasoning(), "assistant",
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
    source = grammar_source(tag, TOKENIZER.special_token_ids)
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
