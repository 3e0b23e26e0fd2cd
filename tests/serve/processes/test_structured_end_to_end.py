"""The official client's structured outputs, from a server in its own processes."""

import json
import re
from typing import Literal

import openai
import pytest
from pydantic import BaseModel, Field

from engine import LLM, Remote, gen
from engine import choice as likeliest
from models.demo import DEMO_FOLDER
from tests.serve.processes.test_engine_end_to_end import FEW, server


class Pet(BaseModel):
    name: str = Field(max_length=10)
    kind: Literal["cat", "dog"]
    legs: int = Field(ge=0, le=4)
    friends: list[Literal["Tom", "Lily"]] = Field(max_length=2)


@pytest.fixture(scope="module")
def client():
    flags = ("--served-model-name", "demo", *FEW, "--num-scheduler-steps", "1")
    with (
        server(DEMO_FOLDER, *flags) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


MESSAGES = [{"role": "user", "content": "Tell me about your pet."}]


def test_parse(client: openai.OpenAI) -> None:
    for seed in range(3):
        answer = client.beta.chat.completions.parse(
            model="demo", messages=MESSAGES, response_format=Pet, max_tokens=200, seed=seed
        )
        [choice] = answer.choices
        assert isinstance(choice.message.parsed, Pet) and choice.finish_reason == "stop"


def test_streamed(client: openai.OpenAI) -> None:
    with client.beta.chat.completions.stream(
        model="demo", messages=MESSAGES, response_format=Pet, max_tokens=200, temperature=1, seed=5
    ) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Pet)
    assert "".join(pieces) == final.choices[0].message.content and len(pieces) > 1


def test_other_constraints(client: openai.OpenAI) -> None:
    def said(**options) -> list[str]:
        answer = client.chat.completions.create(
            model="demo", messages=MESSAGES, max_tokens=60, temperature=1, n=3, **options
        )
        assert all(choice.finish_reason == "stop" for choice in answer.choices)
        return [choice.message.content for choice in answer.choices]

    phone = said(extra_body={"structured_outputs": {"regex": r"\d{3}-\d{4}"}})
    assert all(re.fullmatch(r"\d{3}-\d{4}", text) for text in phone)
    assert set(said(extra_body={"guided_choice": ["red", "blue"]})) <= {"red", "blue"}
    assert all(text.isdecimal() for text in said(extra_body={"ebnf": "root ::= [0-9]{1,5}"}))
    schema = {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}
    for text in said(extra_body={"guided_json": schema}):
        assert all(isinstance(item, bool) for item in json.loads(text))


def test_a_bad_schema_is_a_bad_request(client: openai.OpenAI) -> None:
    wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}
    with pytest.raises(openai.BadRequestError, match="not") as caught:
        client.chat.completions.create(model="demo", messages=MESSAGES, response_format=wrong)
    assert caught.value.param == "response_format"


def test_a_call_that_is_demanded(client: openai.OpenAI) -> None:
    parameters = Pet.model_json_schema()
    tool = {"type": "function", "function": {"name": "add_pet", "parameters": parameters}}
    for choice in ("required", {"type": "function", "function": {"name": "add_pet"}}):
        answer = client.chat.completions.create(
            model="demo", messages=MESSAGES, tools=[tool], tool_choice=choice, max_tokens=300,
            parallel_tool_calls=False, temperature=1, seed=1,
        )  # fmt: skip
        [call] = answer.choices[0].message.tool_calls
        assert call.function.name == "add_pet"
        Pet.model_validate_json(call.function.arguments)


def test_what_the_model_chooses_is_bound(client: openai.OpenAI) -> None:
    """At temperature 1: every strict call is valid, and what is no call is a Pet."""
    pet = Pet.model_json_schema()
    function = {"name": "add_pet", "parameters": pet, "strict": True}
    tool = {"type": "function", "function": function}
    wanted = {"type": "json_schema", "json_schema": {"name": "pet", "schema": pet}}
    calls, answers = 0, 0
    for asked, options in (
        ("Add my dog Tom with the tool.", {}),
        ("Add my dog Tom with the tool.", {"response_format": wanted}),
        ("Tell me a story.", {"response_format": wanted}),
    ):
        answer = client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": asked}], tools=[tool],
            max_tokens=200, temperature=1, n=4, seed=3, **options,
        )  # fmt: skip
        for choice in answer.choices:
            message = choice.message
            if choice.finish_reason == "length":
                continue
            for call in message.tool_calls or ():
                Pet.model_validate_json(call.function.arguments)
                calls += 1
            if options and not message.tool_calls:
                Pet.model_validate_json(message.content)
                answers += 1
    assert calls and answers, (calls, answers)


def test_states_of_a_server_are_those_of_the_model(client):
    """The same parts over HTTP and in this process: texts, likelihoods, and what was cached."""
    server = Remote(str(client.base_url))
    with LLM("demo", max_num_seqs=4, max_num_batched_tokens=64) as llm:
        for model in (server, llm):
            s = model.state("Once upon a time there was a little dog who lived in a big house.")
            s += gen("rest", stop=".", max_tokens=24, temperature=0)
            s += " At" + gen("time", regex=r" \d\d:\d\d", temperature=0)
            s += likeliest("then", [" the dog was happy.", " zebra", " the"])
            forks = s.fork(3)
            forks += gen("end", max_tokens=4, temperature=0)
            forks.join()
            if model is server:
                remote, remote_forks = s, forks
    assert remote.text == s.text and remote_forks.join() == forks.join()
    there, here = remote.chosen("then"), s.chosen("then")
    assert there.scores == pytest.approx(here.scores, abs=1e-3)
    assert there.num_cached_tokens == here.num_cached_tokens > 2 * 16
    assert remote.written("rest").stop_reason == s.written("rest").stop_reason
