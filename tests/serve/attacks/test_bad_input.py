"""Every bad request is a 400 that names its field, and the next good one is answered."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.config import EngineConfig
from serve.settings import ServerSettings
from tests.fake_engine import FAIL_STEP, REFUSE
from tests.serve.attacks.harm import assert_unharmed, beside_a_neighbour, memory_stays_flat
from tests.serve.served import PATIENCE, Serve, event_data, until

__all__ = ["memory_stays_flat"]  # a fixture
pytestmark = pytest.mark.anyio

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
GOOD: dict[str, dict[str, Any]] = {
    COMPLETIONS: {"prompt": "a", "max_tokens": 1},
    CHAT: {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1},
}
FLOOD = 10**6


def assert_error(response: Any, status: int = 400) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].endswith((".", "?")) and len(error["message"]) < 700
    return error


BODIES: dict[str, bytes] = {
    "empty": b"",
    "truncated": b'{"model":',
    "text behind": b'{"prompt":"a"}x',
    "a list": b"[]",
    "null": b"null",
    "a number": b"1",
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"prompt":' * 100_000,
    "deep prompt": b'{"prompt":' + b"[" * 100_000,
    "huge integer": b'{"prompt":"a","max_tokens":' + b"9" * 5000 + b"}",
    "integer beyond 64 bits": b'{"prompt":"a","seed":18446744073709551617}',
    "NaN": b'{"prompt":"a","temperature":NaN}',
    "Infinity": b'{"prompt":"a","temperature":Infinity}',
    "1e999": b'{"prompt":"a","temperature":1e999}',
    "invalid UTF-8 in a value": b'{"prompt":"\xff"}',
    "invalid UTF-8 in a name": b'{"\xff":1}',
    "lone surrogate": b'{"prompt":"\\ud800"}',
    "a byte order mark": b'\xef\xbb\xbf{"prompt":"a"}',
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_that_is_no_request(serve: Serve, name: str) -> None:
    headers = {"content-type": "application/json"}
    async with serve() as served:
        async with beside_a_neighbour(served):
            for path in (COMPLETIONS, CHAT):
                response = await served.http.post(path, content=BODIES[name], headers=headers)
                error = assert_error(response)
                assert "9999" not in error["message"]
        await assert_unharmed(served)


BOTH: list[tuple[str, Any]] = [
    ("n", "4"), ("n", True), ("n", 1.5), ("n", 0), ("n", -1), ("n", 10**9), ("n", []),
    ("temperature", -1), ("temperature", "hot"), ("temperature", 1e300), ("temperature", {}),
    ("top_p", 0), ("top_p", 1.1), ("top_p", -0.5),
    ("top_k", -2), ("top_k", 2**31), ("top_k", 0.5),
    ("min_p", 2), ("min_p", -1),
    ("presence_penalty", 2.1), ("frequency_penalty", -2.1), ("repetition_penalty", 0),
    ("seed", -(2**63) - 1), ("seed", 2**64), ("seed", 0.5),
    ("stop", ""), ("stop", [""]), ("stop", ["x"] * 10**5), ("stop", "x" * 10**6), ("stop", [1]),
    ("stop_token_ids", [-1]), ("stop_token_ids", [300]), ("stop_token_ids", [0] * 1000),
    ("bad_words", [""]), ("bad_words", ["x" * 100]), ("bad_words", ["x"] * 1000),
    ("max_tokens", -1), ("max_tokens", 10**30), ("max_tokens", 1000), ("max_tokens", "1"),
    ("min_tokens", -1), ("min_tokens", 5),
    ("prompt_logprobs", -1), ("prompt_logprobs", 10**6),
    ("prompt_logprobs_start", -1), ("prompt_logprobs_start", 1),
    ("logit_bias", {"300": 1}), ("logit_bias", {"-1": 1}), ("logit_bias", {"a": 1}),
    ("logit_bias", {"5": 1e308}), ("logit_bias", {"5": -101}),
    ("logit_bias", {str(i): 1 for i in range(2000)}),
    ("allowed_token_ids", []), ("allowed_token_ids", [300]), ("allowed_token_ids", [2**70]),
    ("stream", "yes"), ("stream_options", {"include_usage": True}), ("stream_options", 1),
    ("truncate_prompt_tokens", 0), ("truncate_prompt_tokens", -2), ("truncate_prompt_tokens", 999),
    ("priority", 1), ("priority", 2**40), ("echo", 1), ("model", 7), ("return_token_ids", "no"),
    ("tools", [{"type": "function"}]),
    ("suffix", "end"), ("best_of", -1), ("best_of", 10**9),
    ("use_beam_search", 1), ("stop_regex", "a*"),
    ("length_penalty", 2), ("early_stopping", "never"), ("early_stopping", "soon"),
    ("chat_template", "{{ 1 }}"), ("request_id", ""), ("rid", 5),
    ("prompt_embeds", "gASV"), ("structured_outputs", {"json": 5}), ("logits_processors", ["x"]),
    ("reasoning_effort", "high"), ("tool_choice", "required"),
]  # fmt: skip

ONE: list[tuple[str, str, Any]] = [
    (COMPLETIONS, "cache_salt", ""), (CHAT, "cache_salt", 5),
    (COMPLETIONS, "prompt", ""), (COMPLETIONS, "prompt", []), (COMPLETIONS, "prompt", [[]]),
    (COMPLETIONS, "prompt", [""]), (COMPLETIONS, "prompt", None), (COMPLETIONS, "prompt", 5),
    (COMPLETIONS, "prompt", {}), (COMPLETIONS, "prompt", ["a"] * FLOOD),
    (COMPLETIONS, "prompt", [[1]] * 2000), (COMPLETIONS, "prompt", ["a", 1]),
    (COMPLETIONS, "prompt", [1, [2]]), (COMPLETIONS, "prompt", "a" * 5_000_000),
    (COMPLETIONS, "prompt", "a" * 128), (COMPLETIONS, "prompt", [1] * 128),
    (COMPLETIONS, "prompt", [-1]), (COMPLETIONS, "prompt", [300]), (COMPLETIONS, "prompt", [2**31]),
    (COMPLETIONS, "prompt", [2**63]), (COMPLETIONS, "prompt", [2**70]),
    (COMPLETIONS, "prompt", [1.5]), (COMPLETIONS, "prompt", [True]),
    (COMPLETIONS, "prompt", [REFUSE]), (COMPLETIONS, "max_tokens", 0),
    (COMPLETIONS, "logprobs", -1), (COMPLETIONS, "logprobs", 10**6),
    (COMPLETIONS, "logprobs", True),
    (CHAT, "messages", []), (CHAT, "messages", None), (CHAT, "messages", "hi"),
    (CHAT, "messages", [{"role": "user", "content": "a"}] * 100_000),
    (CHAT, "messages", [{}]), (CHAT, "messages", [{"role": "alien", "content": "a"}]),
    (CHAT, "messages", [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
    (CHAT, "messages", [{"role": "user", "content": 5}]),
    (CHAT, "messages", [{"role": "assistant", "content": "", "tool_calls": [{}]}]),
    (CHAT, "messages", [{"role": "user", "content": "a", "mood": "good"}]),
    (CHAT, "messages", [{"role": "user", "content": "a" * 5_000_000}]),
    (CHAT, "max_tokens", 0), (CHAT, "max_completion_tokens", 0),
    (CHAT, "logprobs", 1), (CHAT, "top_logprobs", 2), (CHAT, "top_logprobs", -1),
    (CHAT, "chat_template_kwargs", {"messages": []}), (CHAT, "chat_template_kwargs", {"tools": []}),
    (CHAT, "chat_template_kwargs", {"tokenize": True}), (CHAT, "chat_template_kwargs", {"zz": 1}),
    (CHAT, "chat_template_kwargs", [1]),
    (CHAT, "input_ids", []), (CHAT, "input_ids", [300]), (CHAT, "input_ids", [5] * 128),
    (CHAT, "input_ids", ["a"]), (CHAT, "extra_key", ""), (CHAT, "return_hidden_states", True),
    (CHAT, "best_of", 3), (COMPLETIONS, "stream_reasoning", False),
    (CHAT, "verbosity", "low"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "param", "value"),
    [(path, *case) for case in BOTH for path in (COMPLETIONS, CHAT)] + ONE,
    ids=lambda value: str(value)[:40],
)
async def test_a_bad_value_is_named(serve: Serve, path: str, param: str, value: Any) -> None:
    async with serve() as served:
        response = await served.post(path, **{**GOOD[path], param: value})
        assert assert_error(response)["param"] == param
        await assert_unharmed(served)


NEUTRAL: list[tuple[str, str, Any]] = [
    (COMPLETIONS, "best_of", 1), (COMPLETIONS, "suffix", None), (COMPLETIONS, "user", "me"),
    (COMPLETIONS, "prompt", "\x00"), (COMPLETIONS, "stop", []), (COMPLETIONS, "length_penalty", 1),
    (CHAT, "response_format", {"type": "text"}), (CHAT, "tools", None), (CHAT, "store", False),
    (CHAT, "tool_choice", "none"), (CHAT, "parallel_tool_calls", True), (CHAT, "metadata", {}),
    (CHAT, "n", None), (CHAT, "stop", None), (CHAT, "logit_bias", None), (CHAT, "seed", -1),
    (CHAT, "tool_choice", "auto"), (CHAT, "functions", []), (CHAT, "function_call", "auto"),
    (CHAT, "verbosity", "medium"), (CHAT, "stream_reasoning", True), (CHAT, "custom_params", {}),
    (CHAT, "return_hidden_states", False), (CHAT, "data_parallel_rank", None),
    (COMPLETIONS, "session_params", None), (CHAT, "some_name_of_tomorrow", None),
    (COMPLETIONS, "return_prompt_text", False),
]  # fmt: skip


@pytest.mark.parametrize(("path", "field", "value"), NEUTRAL)
async def test_a_value_that_asks_for_nothing_is_taken(
    serve: Serve, path: str, field: str, value: Any
) -> None:
    async with serve() as served:
        response = await served.post(path, **{**GOOD[path], field: value})
    assert response.status_code == 200, response.text


async def test_an_unknown_field_is_refused_with_the_nearest_name(serve: Serve) -> None:
    async with serve() as served:
        near = assert_error(await served.complete(prompt="a", temprature=1))
        far = assert_error(await served.complete(prompt="a", **{"\x1b[31m\r\n": 1}))
        nested = assert_error(
            await served.complete(prompt="a", stream=True, stream_options={"include": True})
        )
    assert near["param"] == "temprature" and "temperature" in near["message"]
    assert "\x1b" not in far["message"] and "\n" not in far["message"]
    assert nested["param"] == "stream_options" and "include" in nested["message"]


async def test_of_two_equal_keys_the_last_counts(serve: Serve) -> None:
    async with serve() as served:
        response = await served.http.post(
            COMPLETIONS,
            content=b'{"prompt":"a","max_tokens":1,"prompt":"b"}',
            headers={"content-type": "application/json"},
        )
    assert response.json()["choices"][0]["text"] == "b"


async def test_headers_are_checked_before_the_body(serve: Serve) -> None:
    body = json.dumps(GOOD[COMPLETIONS]).encode()
    form = {"content-type": "application/x-www-form-urlencoded"}
    packed = {"content-type": "application/json", "content-encoding": "gzip"}
    both = {"content-type": "application/json", "transfer-encoding": "chunked"}
    large = {"content-type": "application/json", "content-length": "999999999999999999999"}
    async with serve() as served:
        for headers, status in ((form, 415), (packed, 415), (both, 400), (large, 413)):
            response = await served.http.post(COMPLETIONS, content=body, headers=headers)
            assert_error(response, status)
            assert response.headers["connection"] == "close"
        charset = {"content-type": "application/json; charset=utf-8"}
        response = await served.http.post(COMPLETIONS, content=body, headers=charset)
        assert response.status_code == 200
        await assert_unharmed(served)


async def test_an_endless_body_is_cut_at_the_limit(serve: Serve) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1024
            yield b" " * 1024

    async with serve(ServerSettings(max_body_bytes=64 * 1024)) as served:
        headers = {"content-type": "application/json"}
        response = await served.http.post(COMPLETIONS, content=endless(), headers=headers)
        assert_error(response, 413)
        await assert_unharmed(served)
    assert sent <= 66 * 1024


async def test_unknown_paths_and_methods(serve: Serve) -> None:
    async with serve() as served:
        for method, path, status in (
            ("GET", "/v2", 404), ("POST", "/v1/nothing", 404), ("GET", COMPLETIONS, 405),
            ("FOO", "/v1/models", 405), ("GET", "//v1/models", 404),
        ):  # fmt: skip
            response = await served.http.request(method, path)
            assert_error(response, status)


async def test_prompts_times_samples_are_bounded(serve: Serve) -> None:
    async with serve() as served:
        error = assert_error(await served.complete(prompt=["a"] * 100, n=100))
    assert error["param"] == "n"


async def test_a_full_queue_says_so_before_the_stream(serve: Serve) -> None:
    config, settings = EngineConfig(max_num_seqs=1), ServerSettings(max_num_queued_reqs=2)
    async with serve(settings, config) as served:
        body = {"prompt": "ab", "max_tokens": 20}
        with served.engine_stopped():
            first = [asyncio.create_task(served.complete(**body)) for _ in range(3)]
            await until(lambda: served.engine.num_sequences == 3)
            later = {"input": "ab", "background": True, "stream": True}
            for refused in (
                await served.complete(**body, stream=True),
                await served.post("/v1/responses", **later),
            ):
                assert_error(refused, 503)
                assert refused.headers["retry-after"] == "1"
        assert [each.status_code for each in await asyncio.gather(*first)] == [200] * 3
        metrics = (await served.http.get("/metrics")).text
    assert 'vllm:admission_rejections_total{engine="0",model_name="tiny",reason="queue_full"}' in (
        metrics
    )


async def test_too_many_tokens_of_prompts_wait_for_their_first_answer(serve: Serve) -> None:
    settings = ServerSettings(max_num_queued_tokens=10)
    async with serve(settings) as served:

        async def refused(**body: Any) -> bool:
            answer = await served.complete(**{"prompt": "abcd", "max_tokens": 1, **body})
            if answer.status_code == 200:
                return False
            assert "of 8 tokens wait" in assert_error(answer, 503)["message"]
            assert answer.headers["retry-after"] == "1"
            return True

        assert not await refused(prompt="a" * 30)  # alone, a prompt may be longer
        with served.engine_stopped():
            two = [asyncio.create_task(served.complete(prompt="abcd", n=2)) for _ in range(2)]
            await until(lambda: served.engine.num_sequences == 4)  # a prompt counts once
            for body in ({}, {"stream": True}, {"prompt": ["a"] * 3}):
                assert await refused(**body)
            for body in ({"prompt": "ab", "max_tokens": 9}, {"prompt": "a"}):
                gone = asyncio.create_task(served.complete(**body))  # there is room for one of 2
                await until(lambda: served.engine.num_sequences == 5)
                gone.cancel()  # who leaves makes room
                await until(gone.done)
        assert [each.status_code for each in await asyncio.gather(*two)] == [200] * 2
        before, served.core.step_seconds = served.core.num_generated, 0.005
        async with asyncio.timeout(PATIENCE):
            long = asyncio.create_task(served.complete(prompt="abcdefgh", max_tokens=60))
            await until(lambda: served.core.num_generated > before + 10)
            assert not await refused(prompt="abcdefgh")  # what writes waits no longer
            await long
        metrics = (await served.http.get("/metrics")).text
    line = 'vllm:admission_rejections_total{engine="0",model_name="tiny",reason="queued_tokens"} '
    assert [x for x in metrics.splitlines() if x.startswith(line)] == [line + "3.0"]


async def test_a_dead_engine_fails_what_runs_and_what_comes(serve: Serve) -> None:
    async with serve(config=EngineConfig(max_model_len=100_000)) as served:
        served.core.step_seconds = 0.01
        running = [
            asyncio.create_task(served.complete(prompt="ab", max_tokens=90_000, stream=stream))
            for stream in (False, True)
        ]
        await until(lambda: served.core.num_generated > 8)  # each has been told a token
        killer = await served.complete(prompt=[FAIL_STEP])
        whole, streamed = await asyncio.gather(*running)
        later = await served.complete(prompt="a")
        health = await served.http.get("/health")
    assert_error(killer, 500)
    assert_error(whole, 500)
    assert_error(later, 503)
    assert (health.status_code, health.json()) == (503, {"status": "dead"})
    *_, error, done = event_data(streamed.text)
    assert streamed.status_code == 200 and done == "[DONE]"
    assert error["error"]["type"] == "internal_server_error"
    assert "fire" not in streamed.text
