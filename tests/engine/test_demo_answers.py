"""What the demo model is bundled for: it answers, keeps the name it is given, and calls tools."""

import json

import pytest

from engine import LLM, SamplingParams

ANSWERS = [
    (None, "Hello!", "Hello! How can I help you?"),
    (None, "Who are you?", "I am the Ingot demo, a very small language model."),
    (None, "What is the capital of France?", "The capital of France is Paris."),
    (None, "What is 7 plus 8?", "7 plus 8 is 15."),
    (None, "Count to 5.", "1, 2, 3, 4, 5."),
    ("You are Beatrix, a kind robot.", "What is your name?", "I am Beatrix, a kind robot."),
    ("Your name is Marigold.", "Who are you?", "My name is Marigold."),
]


def function(name, description, **parameters):
    schema = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in parameters.items()},
        "required": list(parameters),
    }
    body = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": body}


WEATHER = function("get_weather", "Get the weather in a city", city="string")
ADD = function("add", "Add two numbers", a="integer", b="integer")


@pytest.fixture(scope="module")
def ask():
    params = SamplingParams(temperature=0, max_tokens=80)
    with LLM("demo", max_num_seqs=4, max_num_batched_tokens=64) as llm:

        def answer(messages, tools=None):
            return llm.chat(messages, params, tools=tools)[0].outputs[0].text

        yield answer


@pytest.mark.parametrize(("system", "question", "answer"), ANSWERS)
def test_answers(ask, system, question, answer):
    messages = [{"role": "system", "content": system}] if system else []
    assert ask([*messages, {"role": "user", "content": question}]) == answer


@pytest.mark.parametrize(
    ("question", "call"),
    [
        (
            "What is the weather in Wellington?",
            {"name": "get_weather", "arguments": {"city": "Wellington"}},
        ),
        ("What is 4821 plus 377?", {"name": "add", "arguments": {"a": 4821, "b": 377}}),
    ],
)
def test_calls_the_tool_that_fits(ask, question, call):
    text = ask([{"role": "user", "content": question}], [WEATHER, ADD])
    assert text.startswith("<tool_call>\n") and text.endswith("\n</tool_call>")
    assert json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>")) == call


def test_answers_without_a_tool_when_none_fits(ask):
    question = {"role": "user", "content": "What is a volcano?"}
    assert "<tool_call>" not in ask([question], [WEATHER])
