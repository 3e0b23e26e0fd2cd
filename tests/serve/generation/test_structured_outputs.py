"""Constraints over HTTP: their many names, what is refused, and compilers that die alone."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import OverloadedError
from engine.grammar import worker_messages
from engine.grammar.params import StructuredOutputsParams
from engine.grammar.worker_messages import Compiled, Remembered
from engine.messages import ModelInfo
from serve.generation.grammars import GrammarCompiler
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
NAMED = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
TAGS = {
    "structures": [{"begin": "<f>", "schema": SCHEMA, "end": "</f>"}],
    "triggers": ["<f"],
}
SAME: list[list[dict[str, Any]]] = [
    [
        {"structured_outputs": {"json": SCHEMA}},
        {"structured_outputs": {"json": json.dumps(SCHEMA)}},
        {"guided_json": SCHEMA},
        {"json_schema": json.dumps(SCHEMA)},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": SCHEMA},
            }
        },
        {"response_format": {"type": "json_schema", "schema": SCHEMA}},
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
    ],
    [
        {"structured_outputs": {"regex": "[ab]+"}},
        {"guided_regex": "[ab]+"},
        {"regex": "[ab]+"},
    ],
    [{"structured_outputs": {"choice": ["a", "b"]}}, {"guided_choice": ["a", "b"]}],
    [
        {"structured_outputs": {"grammar": 'root ::= "a"+'}},
        {"guided_grammar": 'root ::= "a"+'},
        {"ebnf": 'root ::= "a"+'},
    ],
    [
        {"structured_outputs": {"json_object": True}},
        {"response_format": {"type": "json_object"}},
    ],
    [
        {"structured_outputs": {"structural_tag": TAGS}},
        {"structured_outputs": {"structural_tag": json.dumps(TAGS)}},
        {"response_format": {"type": "structural_tag", **TAGS}},
    ],
    [
        {"structured_outputs": {"json": SCHEMA, "whitespace_pattern": " "}},
        {"guided_json": SCHEMA, "guided_whitespace_pattern": " "},
    ],
]


async def test_all_names_of_a_constraint_mean_the_same(serve: Serve) -> None:
    async with serve() as served:
        seen = set()
        for spellings in SAME:
            served.core.added.clear()
            for options in spellings:
                assert (await served.complete(prompt="a", max_tokens=2, **options)).is_success
                assert (await served.chat("a", max_tokens=2, **options)).is_success
            [source] = {request.grammar for request in served.core.added}
            assert source and all(r.params.structured_outputs is None for r in served.core.added)
            seen.add(source)
        assert len(seen) == len(SAME)
        served.core.added.clear()
        for nothing in ({"type": "text"}, None):
            assert (await served.chat("a", max_tokens=2, response_format=nothing)).is_success
        assert {request.grammar for request in served.core.added} == {""}


@pytest.mark.parametrize(
    ("options", "param", "says"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format", "schema"),
        ({"response_format": {"type": "xml"}}, "response_format", "xml"),
        ({"response_format": {"type": "text", "extra": 1}}, "response_format", "extra"),
        ({"response_format": {"type": "json_object", **TAGS}}, "response_format", "together"),
        ({"response_format": {"type": "structural_tag"}}, "response_format", "structures"),
        ({"response_format": {"type": "text", "schema": {}}}, "response_format", "together"),
        ({"response_format": {**NAMED, "schema": {}}}, "response_format", "together"),
        ({"response_format": "json"}, "response_format", "got str"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {
                "name": "x", "schema": {"not": {}}}}},
            "response_format", '"not"',
        ),
        ({"structured_outputs": {"jsn": 1}}, "structured_outputs", "'jsn'"),
        ({"structured_outputs": {"regex": 1}}, "structured_outputs", "regex must"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs", "one of"),
        ({"structured_outputs": "a"}, "structured_outputs", "got str"),
        ({"guided_json": {"uniqueItems": True}}, "guided_json", '"uniqueItems"'),
        ({"guided_json": "{"}, "guided_json", "valid JSON"),
        ({"guided_json": 5}, "guided_json", "got int"),
        ({"guided_regex": "("}, "guided_regex", "unclosed"),
        ({"guided_choice": []}, "guided_choice", "choice must"),
        ({"guided_choice": ["a"] * 20_000}, "guided_choice", "choice must"),
        ({"guided_grammar": "root ::= b"}, "guided_grammar", "'b'"),
        ({"guided_whitespace_pattern": " "}, "guided_whitespace_pattern", "guided_json"),
        ({"json_schema": "["}, "json_schema", "valid JSON"),
        ({"regex": "a" * 600_000}, "regex", "characters"),
        ({"ebnf": 7}, "ebnf", "got int"),
        ({"regex": "a", "ebnf": 'root ::= "a"'}, "ebnf", "exclude"),
        ({"regex": "a", "response_format": {"type": "json_object"}}, "regex", "exclude"),
        ({"regex": "a", "allowed_token_ids": [1]}, "allowed_token_ids", "exclude"),
        ({"guided_decoding_backend": "outlines"}, "guided_decoding_backend",
         'leave it out or send "auto" or send "guidance".'),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
async def test_what_is_wrong_is_named(
    serve: Serve, options: dict[str, Any], param: str, says: str
) -> None:
    async with serve() as served:
        for answer in (
            await served.complete(prompt="a", **options),
            await served.chat("a", **options),
        ):
            assert answer.status_code == 400, answer.text
            error = answer.json()["error"]
            assert error["param"] == param and says in error["message"]
            assert len(error["message"]) < 700
        assert (await served.complete(prompt="a", max_tokens=2)).is_success


async def test_n_prompts_and_samples_share_a_grammar(serve: Serve) -> None:
    async with serve() as served:
        await served.complete(prompt=["a", "b"], n=2, max_tokens=2, regex="[ab]")
        assert len({request.grammar for request in served.core.added}) == 1
        assert len(served.core.added) == 4


@pytest.fixture
async def compiler(model_folder: Path, monkeypatch: pytest.MonkeyPatch):
    made = GrammarCompiler(model_folder)
    yield made
    await made.close()


INFO = ModelInfo(
    architecture="F", vocab_size=300, max_model_len=128, num_parameters=1, eos_token_ids=[257],
    max_num_seqs=4, num_pages=64, page_size=16, load_seconds=0.0, compile_seconds=0.0,
)  # fmt: skip
RULES = [f'r{i} ::= "a" r{i + 1}?' for i in range(4000)]
ROOT = "root ::= " + " ".join(f"r{i}" for i in range(4000))
SLOW = "\n".join([*RULES, 'r4000 ::= "b"', ROOT])


async def test_a_grammar_that_takes_too_long_ends_its_compiler_only(
    compiler: GrammarCompiler,
) -> None:
    slow = StructuredOutputsParams(grammar=SLOW)
    quick = [StructuredOutputsParams(regex=f"a{{{number}}}") for number in range(1, 30)]

    async def others() -> None:
        for params in quick:
            assert await compiler.compile(params, INFO)

    bad, _ = await asyncio.gather(compiler.compile(slow, INFO), others(), return_exceptions=True)
    assert "too long" in str(bad)
    with pytest.raises(Exception, match="too long"):  # remembered: nothing is compiled again
        await asyncio.wait_for(compiler.compile(slow, INFO), 0.1)
    assert await compiler.compile(StructuredOutputsParams(regex="b"), INFO)


@pytest.mark.parametrize("harm", ["bytearray(1 << 32)", "os.abort()"])
async def test_a_grammar_that_takes_too_much_memory_ends_its_compiler_only(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    code = (
        f"import os; from engine.grammar import worker; worker.check_grammar = lambda *_: {harm}; "
    )
    command = (worker_messages.COMMAND[0], "-P", "-c", code + "worker.main()")
    monkeypatch.setattr(worker_messages, "COMMAND", command)
    with pytest.raises(Exception, match="too much memory"):
        await compiler.compile(StructuredOutputsParams(regex="a"), INFO)
    await compiler.close()
    monkeypatch.undo()
    assert await compiler.compile(StructuredOutputsParams(regex="b"), INFO)


async def test_a_busy_machine_is_not_the_grammars_fault(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the processor, which is no time of its own; and if it does for too long, that
    is not remembered of the grammar."""
    code = (
        "import sys, time; from engine.grammar import worker; worker.COMPILE_SECONDS = 0.2; "
        "worker.WALL_SECONDS = {}; check = worker.check_grammar; "
        "worker.check_grammar = lambda *given: (time.sleep(0.6), check(*given)); worker.main()"
    )
    for wall_seconds in (0.3, 60):
        command = (worker_messages.COMMAND[0], "-P", "-c", code.format(wall_seconds))
        monkeypatch.setattr(worker_messages, "COMMAND", command)
        if wall_seconds < 0.6:
            with pytest.raises(OverloadedError, match="too busy"):
                await compiler.compile(StructuredOutputsParams(regex="a"), INFO)
        else:
            assert await compiler.compile(StructuredOutputsParams(regex="a"), INFO)
        await compiler.close()


async def test_a_client_that_leaves_takes_the_compiler_along(compiler: GrammarCompiler) -> None:
    compiling = asyncio.create_task(compiler.compile(StructuredOutputsParams(grammar=SLOW), INFO))
    await asyncio.sleep(0.5)
    compiling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await compiling
    assert await compiler.compile(StructuredOutputsParams(regex="b"), INFO)


def test_what_is_remembered_is_bounded() -> None:
    known = Remembered(100_000)
    for number in range(5_000):
        known.put(b"%d" % number, Compiled("x" * 1000))
        assert known.num_bytes <= 100_000
    assert known.get(b"4999") and known.get(b"0") is None and 50 < len(known) < 100
    known.put(b"large", Compiled("x" * 200_000))
    assert len(known) == known.num_bytes == 0
