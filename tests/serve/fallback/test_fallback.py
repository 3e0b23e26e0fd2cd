"""A server that cannot answer asks others in order, and nobody once it has begun."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from engine.errors import ConfigError
from serve.fallback.apis import FallbackApi, parse_fallbacks
from serve.router.settings import RouterSettings
from serve.settings import ServerSettings
from tests.fake_engine import FAIL_STEP
from tests.serve.http.test_http_protocol import listening
from tests.serve.router.test_router import SSE, chunk, scripted
from tests.serve.served import Serve, Served, event_data, until

pytestmark = pytest.mark.anyio
CLOSED = "http://127.0.0.1:1/v1"
EVENTS = b'data: {"n": 1}\n\ndata: [DONE]\n\n'


class Outside:
    """An API that answers by what it is told to."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.released = asyncio.Event()
        self.silent = 0

    async def __call__(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if not answer:
            self.silent += 1
            await self.released.wait()
            self.silent -= 1
        writer.write(answer)
        await writer.drain()


def whole(text: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(text), text)


async def url_of(stack: AsyncExitStack, outside: Outside) -> str:
    return f"http://127.0.0.1:{await stack.enter_async_context(scripted(outside))}/v1"


def with_fallbacks(apis: Sequence[FallbackApi], **more: Any) -> ServerSettings:
    return ServerSettings(fallbacks=tuple(apis), **more)


async def ask(served: Served, **body: Any) -> Any:
    return await served.complete(**{"model": "tiny", "prompt": "ab", "max_tokens": 2, **body})


async def test_what_is_refused_here_is_asked_of_each_in_order(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEIR_KEY", "theirs")
    second = Outside(whole(b"no", b"429 Busy"), whole(b"", b"500 Broken"))
    third = Outside(whole(b"{}"), whole(b"{}"))
    async with AsyncExitStack() as stack:
        apis = [
            FallbackApi(url=CLOSED),
            FallbackApi(url=await url_of(stack, second)),
            FallbackApi(url=await url_of(stack, third), api_key_env="THEIR_KEY", model="big"),
        ]
        served = await stack.enter_async_context(serve(with_fallbacks(apis)))
        own = await ask(served)
        served.engine.drain()
        answers = [await ask(served, prompt="x") for _ in range(2)]
        metrics = (await served.http.get("/metrics")).text
        config = (await served.http.get("/server_info")).text
    assert own.json()["choices"][0]["text"] == "ab"
    assert [(each.status_code, each.text) for each in answers] == [(200, "{}")] * 2
    head, _, body = third.requests[0].partition(b"\r\n\r\n")
    assert b"Bearer theirs" in head and json.loads(body)["model"] == "big"
    assert b"authorization" not in second.requests[0].lower()
    assert len(second.requests) == 2 and 'outcome="429"' in metrics
    assert "THEIR_KEY" in config and "theirs" not in config


async def test_an_engine_that_fails_before_the_first_byte_is_stood_in_for(serve: Serve) -> None:
    outside = Outside(SSE + chunk(EVENTS) + b"0\r\n\r\n")
    async with AsyncExitStack() as stack:
        apis = [FallbackApi(url=await url_of(stack, outside))]
        served = await stack.enter_async_context(serve(with_fallbacks(apis)))
        response = await ask(served, prompt=[FAIL_STEP], stream=True)
    assert event_data(response.text) == [{"n": 1}, "[DONE]"]


async def test_a_stream_that_has_begun_is_nobody_elses(serve: Serve) -> None:
    outside = Outside()
    async with AsyncExitStack() as stack:
        apis = [FallbackApi(url=await url_of(stack, outside))]
        settings = with_fallbacks(apis, try_timeout=0.2)
        served = await stack.enter_async_context(serve(settings))
        served.core.step_seconds = 0.02
        response = await ask(served, max_tokens=30, stream=True)
    assert "".join(e["choices"][0]["text"] for e in event_data(response.text)[:-1]) == "ab" * 15
    assert not outside.requests


async def test_each_has_its_time_and_then_the_refusal_is_the_answer(serve: Serve) -> None:
    """This server, an API that says nothing, one whose stream has a head and no more."""
    silent, empty = Outside(b"", b""), Outside(SSE, SSE)
    async with AsyncExitStack() as stack:
        apis = [
            FallbackApi(url=await url_of(stack, silent), timeout=0.05),
            FallbackApi(url=await url_of(stack, empty)),
        ]
        settings = with_fallbacks(apis, try_timeout=0.2)
        served = await stack.enter_async_context(serve(settings))
        with served.engine_stopped():
            late = await ask(served, stream=True)
            await until(lambda: not served.engine.num_sequences)
        served.engine.drain()
        refused = await ask(served)
        silent.released.set()
        await until(lambda: not silent.silent)
    assert len(silent.requests) == len(empty.requests) == 2
    assert late.status_code == refused.status_code == 503 and late.headers["retry-after"]
    assert "No server" in late.json()["error"]["message"]
    assert refused.json()["error"]["message"] == "The server is shutting down."


async def test_what_others_cannot_know_stays_here(serve: Serve) -> None:
    outside = Outside()
    async with AsyncExitStack() as stack:
        apis = [FallbackApi(url=await url_of(stack, outside))]
        served = await stack.enter_async_context(serve(with_fallbacks(apis)))
        made = await served.post("/v1/responses", input="a", max_output_tokens=1)
        continued = {"input": "a", "previous_response_id": made.json()["id"]}
        served.engine.drain()
        answers = [
            await served.post("/v1/responses", **continued),
            await served.post("/tokenize", prompt="a"),
            await ask(served, temperature=-1),
            await served.http.post(
                "/v1/completions", json={"prompt": "a"}, headers={"x-ingot-fallback": "1"}
            ),
        ]
    assert [each.status_code for each in answers] == [503, 200, 400, 503]
    assert not outside.requests


async def test_two_servers_that_stand_in_for_each_other_ask_once(serve: Serve) -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(serve())
        port = await stack.enter_async_context(listening(one))
        apis = [FallbackApi(url=f"http://127.0.0.1:{port}/v1", model="tiny")]
        two = await stack.enter_async_context(serve(with_fallbacks(apis)))
        two.engine.drain()
        response = await ask(two)
    assert response.json()["choices"][0]["text"] == "ab"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["nowhere"], "no URL"),
        (["http://user:key@a"], "do not belong into URLs"),
        (["http://a", "http://a"], "same URL"),
        (['{"url": "http://a", "key": "k"}'], "unknown field key"),
        (['{"url": "http://a", "api_key_env": "NOT_SET"}'], "'NOT_SET'.* is not set"),
        (['{"url": "http://a", "timeout": 0}'], "timeout of http://a"),
        (["{"], "takes a URL, or JSON"),
    ],
)
def test_apis_that_are_wrong(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_fallbacks(texts)


def test_a_key_is_not_everybodys_to_spend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", "theirs")
    apis = parse_fallbacks(['{"url": "http://a", "api_key_env": "THEIR_KEY"}', "http://b"])
    assert [api.key for api in apis] == ["theirs", None]
    for kind, more in ((ServerSettings, {}), (RouterSettings, {"backends": ("http://x",)})):
        with pytest.raises(ConfigError, match="--api-key"):
            kind(fallbacks=apis, host="0.0.0.0", **more)
        kind(fallbacks=apis, host="0.0.0.0", api_keys=("k",), **more)
