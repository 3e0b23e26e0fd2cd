"""The router over real sockets, before two scripted servers or one that breaks off."""

import asyncio
import errno
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest
from starlette.routing import Match

from engine.errors import ConfigError
from serve.fallback.apis import FallbackApi
from serve.http.server_address import ServerAddress
from serve.operations.operator_routes import OPERATOR_PATHS
from serve.paths import OPERATIONS
from serve.router import backends as backends_module
from serve.router.app import UNVERSIONED, build_router
from serve.router.backends import Backends
from serve.router.settings import RouterSettings
from serve.router.upstream import Call, ask
from serve.settings import ServerSettings
from tests.serve.http.test_http_protocol import listening
from tests.serve.served import PATIENCE, Serve, Served, event_data, until

pytestmark = pytest.mark.anyio

COMPLETIONS = "/v1/completions"
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
Script = Callable[[bytes, asyncio.StreamWriter], Any]


@pytest.fixture(autouse=True)
def patient_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends_module, "HEALTH_SECONDS", PATIENCE)


class Routed:
    """A router, its backends, and a client for it."""

    def __init__(self, http: httpx.AsyncClient, backends: Backends) -> None:
        self.http, self.backends = http, backends

    async def complete(self, **body: Any) -> httpx.Response:
        return await self.http.post(COMPLETIONS, json=body)


@asynccontextmanager
async def routed(*ports: int, **settings: Any) -> AsyncIterator[Routed]:
    urls = tuple(f"http://127.0.0.1:{port}" for port in ports)
    backends = Backends(urls)
    app = build_router(RouterSettings(backends=urls, **settings), backends)
    await backends.check()
    async with (
        listening(SimpleNamespace(app=app)) as port,  # type: ignore[arg-type]
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as http,
    ):
        yield Routed(http, backends)


@asynccontextmanager
async def pair(
    serve: Serve, behind: ServerSettings | None = None, **settings: Any
) -> AsyncIterator[tuple[Routed, Served, Served]]:
    async with AsyncExitStack() as stack:
        served = [await stack.enter_async_context(serve(behind)) for _ in range(2)]
        ports = [await stack.enter_async_context(listening(each)) for each in served]
        yield await stack.enter_async_context(routed(*ports, **settings)), served[0], served[1]


@asynccontextmanager
async def scripted(script: Script, hangs: list[bool] | None = None) -> AsyncIterator[int]:
    """A server that is ready, unless it `hangs`, and answers anything else by `script`."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /readyz"):
            if hangs:
                await reader.read()  # until nobody waits
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        else:
            length = next(line for line in head.lower().split(b"\r\n") if b"content-length" in line)
            body = await reader.readexactly(int(length.split(b":")[1]))
            await script(head + body, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def test_a_beginning_goes_where_it_is_known_and_others_spread(serve: Serve) -> None:
    async with pair(serve) as (router, one, two):
        for turn in range(3):
            for name in "xy":
                prompt = name * 80 + "z" * 8 * turn
                response = await router.complete(prompt=prompt, max_tokens=1)
                assert response.json()["choices"][0]["text"] == name
        metrics = (await router.http.get("/metrics")).text
    for served in (one, two):
        assert len(served.core.added) == 3
        assert len({each.prompt_token_ids[0] for each in served.core.added}) == 1
    assert metrics.count('choice="prefix"} 2.0') == 2 and metrics.count('choice="load"} 1.0') == 2


async def test_what_belongs_together_is_answered_by_one_server(serve: Serve) -> None:
    """By the body's session_id, or the header; prompts have nothing in common."""
    async with pair(serve) as (router, one, two):
        for turn in range(3):
            for name in "xy":
                prompt = name + "abc"[turn] * 99
                asked = await router.complete(prompt=prompt, max_tokens=1, session_id=name)
                assert asked.status_code == 200, asked.text
                headers = {"X-Session-ID": name}
                body = {"input": "de"[turn % 2] * 99, "max_output_tokens": 1}
                asked = await router.http.post("/v1/responses", json=body, headers=headers)
                assert asked.status_code == 200, asked.text
        firsts = [{each.prompt_token_ids[0] for each in s.core.added} for s in (one, two)]
        at_x = next(each for each in router.backends.all if each.asked)
        at_x.at_work += 50
        for name in "xy":  # one of them is far too busy now
            assert (await router.complete(prompt=name, session_id=name)).status_code == 200
        metrics = (await router.http.get("/metrics")).text
    assert sorted(len(each.core.added) for each in (one, two)) == [6, 8]
    assert len(firsts[0] & firsts[1]) == 1  # what conversations begin with
    assert metrics.count('choice="session"} 5.0') + metrics.count('choice="session"} 6.0') == 2


async def test_a_busy_server_is_relieved_of_what_it_knows(serve: Serve) -> None:
    async with pair(serve) as (router, one, two):
        await router.complete(prompt="x" * 80, max_tokens=1)
        knows = next(each for each in router.backends.all if each.asked)
        knows.at_work += 50
        await router.complete(prompt="x" * 80, max_tokens=1)
    assert len(one.core.added) == len(two.core.added) == 1


async def test_streams_come_as_they_are_made(serve: Serve) -> None:
    async with pair(serve) as (router, one, two):
        one.core.step_seconds = two.core.step_seconds = 0.02
        body = {"prompt": "ab", "max_tokens": 20, "stream": True}
        text = ""
        async with router.http.stream("POST", COMPLETIONS, json=body) as response:
            assert response.headers["x-accel-buffering"] == "no"
            async for piece in response.aiter_text():
                if not text:
                    assert one.core.has_work or two.core.has_work
                text += piece
    *chunks, done = event_data(text)
    assert "".join(each["choices"][0]["text"] for each in chunks) == "ab" * 10 and done == "[DONE]"


async def test_a_client_that_leaves_frees_its_rows_behind_the_router(serve: Serve) -> None:
    async with pair(serve) as (router, one, two):
        one.core.step_seconds = two.core.step_seconds = 0.01
        body = {"prompt": "ab", "max_tokens": 120, "stream": True}
        async with router.http.stream("POST", COMPLETIONS, json=body) as response:
            await anext(response.aiter_bytes())
        await until(lambda: not (one.core.has_work or two.core.has_work))
        assert len(one.core.aborted) + len(two.core.aborted) == 1
        assert [each.at_work for each in router.backends.all] == [0, 0]


async def test_errors_and_keys_are_the_backends(serve: Serve) -> None:
    async with pair(serve, ServerSettings(api_keys=("k",))) as (router, _, _):
        refused = await router.complete(prompt="a")
        router.http.headers["authorization"] = "Bearer k"
        wrong = await router.complete(prompt="a", temperature=-1)
        models = await router.http.get("/v1/models")
        odd = [await router.http.get(p) for p in ("/admin/state", "/v1/%2e%2e/admin/state", "/x")]
        odd += [await router.http.post(path, json={}) for path in OPERATOR_PATHS]
        served = [await router.http.post(path, json={}) for path in UNVERSIONED]
    assert refused.status_code == 401
    assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "temperature"
    assert models.json()["data"][0]["id"] == "tiny" and len(models.headers["x-request-id"]) == 32
    assert {each.status_code for each in odd} == {404}
    assert {each.status_code for each in served} == {200, 400}  # a session needs nothing


async def test_sessions_go_on_where_they_are(serve: Serve) -> None:
    async with pair(serve) as (router, one, two):
        opened = [{"capacity_of_str_len": 0}, {"capacity_of_str_len": 0, "session_id": "mine"}] * 2
        opened[3] = {"capacity_of_str_len": 0, "session_id": "other"}
        names = [(await router.http.post("/open_session", json=body)).json() for body in opened]
        for name in names * 2:
            session = {"session_params": {"id": name}, "sampling_params": {"max_new_tokens": 1}}
            answer = await router.http.post("/generate", json={"text": f"a{name}", **session})
            assert answer.status_code == 200, answer.text
        again = await router.http.post("/open_session", json=opened[1])
        closed = [
            await router.http.post("/close_session", json={"session_id": name}) for name in names
        ]
        assert one.core.added and two.core.added
    assert names[1::2] == ["mine", "other"] and again.status_code == 400
    assert [each.status_code for each in closed] == [200] * 4


async def test_stored_responses_are_asked_for_where_they_are(serve: Serve) -> None:
    async with pair(serve) as (router, one, two):
        made = [
            (await router.http.post("/v1/responses", json={"input": "a", "max_output_tokens": 1}))
            for _ in range(4)
        ]
        ids = [each.json()["id"] for each in made]
        for name in ids:
            assert (await router.http.get(f"/v1/responses/{name}")).json()["id"] == name
            items = await router.http.get(f"/v1/responses/{name}/input_items?limit=1")
            assert items.json()["data"][0]["content"][0]["text"] == "a"
            body = {"input": "b", "previous_response_id": name, "max_output_tokens": 1}
            assert (await router.http.post("/v1/responses", json=body)).status_code == 200
        assert (await router.http.delete(f"/v1/responses/{ids[0]}")).json()["deleted"]
        assert one.core.added and two.core.added


async def test_another_is_asked_when_one_is_gone_or_refuses(serve: Serve) -> None:
    """A closed port, a server that hangs up, a full one: the client notices nothing."""

    async def hang_up(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def full(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Full\r\nContent-Length: 2\r\n\r\n{}")

    for script, reason in ((hang_up, "lost"), (full, "503")):
        async with (
            serve() as served, listening(served) as good, scripted(script) as bad,
            routed(bad, good) as router,
        ):  # fmt: skip
            response = await router.complete(prompt="ab", max_tokens=2)
            assert response.json()["choices"][0]["text"] == "ab"
            assert router.backends.all[0].is_healthy == (reason == "503")
            metrics = (await router.http.get("/metrics")).text
            assert f'reason="{reason}"}} 1.0' in metrics
    async with serve() as served, listening(served) as good, routed(1, good) as router:
        assert [each.is_healthy for each in router.backends.all] == [False, True]
        assert (await router.complete(prompt="ab", max_tokens=2)).status_code == 200


async def test_what_a_server_that_hangs_was_asked_is_asked_of_another(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs: list[bool] = []
    end = asyncio.Event()

    async def hang(request: bytes, writer: asyncio.StreamWriter) -> None:
        if b'"stream":true' in request:
            writer.write(SSE + chunk(b'data: {"n": 1}\n\n'))
        hangs.append(True)
        await end.wait()

    async with (
        scripted(hang, hangs) as bad, scripted(hang, hangs) as worse, routed(bad) as alone,
        serve() as served, listening(served) as good, routed(bad, good, worse) as router,
    ):  # fmt: skip
        bodies = {"prompt": "ab"}, {"prompt": "ab", "stream": True}
        one = asyncio.create_task(alone.complete(**bodies[0]))
        router.backends.all[1].asked = 1  # the two others are asked first
        two = [asyncio.create_task(router.complete(**body)) for body in bodies]
        await until(lambda: len(hangs) == 3)
        monkeypatch.setattr(backends_module, "HEALTH_SECONDS", 0.1)
        for _ in range(backends_module.MAX_SILENT):
            await asyncio.gather(alone.backends.check(), router.backends.check())
        assert (await two[0]).json()["choices"][0]["text"].startswith("ab")
        whole, error, _ = event_data((await two[1]).text)
        assert whole == {"n": 1} and error["error"]["type"] == "internal_server_error"
        assert not one.done()  # it would have nobody else
        end.set()
        assert (await one).status_code == 503


async def test_who_no_longer_listens_may_end_what_it_was_asked(serve: Serve) -> None:
    """As uvicorn's servers do that drain: the system refuses for them, which is no silence."""
    begun, end = asyncio.Event(), asyncio.Event()

    async def think(_: bytes, writer: asyncio.StreamWriter) -> None:
        begun.set()
        await end.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with serve() as served, listening(served) as good, AsyncExitStack() as draining:
        old = await draining.enter_async_context(scripted(think))
        async with routed(old, good) as router:
            asked = asyncio.create_task(router.complete(prompt="ab"))
            await begun.wait()
            closing = asyncio.create_task(draining.aclose())
            await router.backends.check()
            assert not router.backends.all[0].is_healthy and not router.backends.all[0].silent
            end.set()
            assert (await asked).json() == {}
            await closing


async def test_a_connection_that_is_refused_is_an_answer_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = Backends(["http://127.0.0.1:1"]).all[0]
    unreachable = OSError(errno.EHOSTUNREACH, "No route to host")
    for error, silent in ((TimeoutError(), 1), (unreachable, 2), (ConnectionRefusedError(), 0)):
        monkeypatch.setattr(asyncio, "open_connection", AsyncMock(side_effect=error))
        await backend.check()
        assert backend.silent == silent


async def test_a_stream_that_breaks_off_ends_with_an_error() -> None:
    async def break_off(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + chunk(b'data: {"n": 1}\n\ndata: {"n"'))
        await writer.drain()

    body = {"prompt": "a", "stream": True}
    async with scripted(break_off) as port, routed(port) as router:
        whole, error, done = event_data((await router.complete(**body)).text)
        named = (await router.http.post("/v1/messages", json=body)).text
        last, _ = event_data((await router.http.post("/cohere/v2/chat", json=body)).text)[1:]
        assert "answers that broke off" in (await router.http.get("/metrics")).text
    assert whole == {"n": 1} and done == "[DONE]"
    assert error["error"]["type"] == "internal_server_error"
    assert "event: error\n" in named and "[DONE]" not in named
    assert (last["type"], last["delta"]["finish_reason"]) == ("message-end", "ERROR")


async def test_servers_are_looked_after_whatever_happens(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backends_module, "HEALTH_SECONDS", 0.01)
    asked = backends_module.ask

    def fail(*_: object) -> None:
        raise ValueError("a mistake of ours")

    async with serve() as served, listening(served) as port:
        backends = Backends([f"http://127.0.0.1:{port}"])
        monkeypatch.setattr(backends_module, "ask", fail)
        watch = asyncio.create_task(backends.watch())
        await until(lambda: "a mistake of ours" in caplog.text)
        monkeypatch.setattr(backends_module, "ask", asked)
        monkeypatch.setattr(backends_module, "HEALTH_SECONDS", PATIENCE)
        await until(lambda: backends.all[0].is_healthy)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def test_the_system_asks_whether_a_silent_server_is_still_there() -> None:
    """One whose machine was switched off never closes a connection."""

    async def wait(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE + chunk(b"data: 1\n\n"))

    opened: list[socket.socket] = []
    connect = asyncio.open_connection

    async def watched(*given: Any, **more: Any) -> Any:
        reader, writer = await connect(*given, **more)
        opened.append(writer.get_extra_info("socket"))
        return reader, writer

    server = ServerAddress.parse("http://127.0.0.1")
    async with scripted(wait) as port:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(asyncio, "open_connection", watched)
            async with ask(replace(server, port=port), Call("POST", "/", (), b"{}")):
                [connection] = opened
                assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                if hasattr(socket, "TCP_KEEPIDLE"):
                    idle = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
                    assert idle <= 60


async def test_an_answer_that_breaks_off_is_a_502() -> None:
    async def break_off(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()

    async with scripted(break_off) as port, routed(port) as router:
        response = await router.complete(prompt="a")
    assert response.status_code == 502 and "lost" in response.json()["error"]["message"]


async def test_a_recording_is_passed_on_as_the_form_it_is() -> None:
    received = b""

    async def hear(request: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        received = request
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"text": "a"}')
        await writer.drain()

    path, sound = "/v1/audio/transcriptions", bytes(range(256)) * 64
    async with scripted(hear) as port, routed(port, max_body_bytes=1024) as router:
        files = {"file": ("a.wav", sound)}
        response = await router.http.post(path, files=files, data={"model": "m"})
        text = await router.http.post(path, json={"model": "m"})
    assert response.json() == {"text": "a"}
    assert sound in received and b"multipart/form-data; boundary=" in received
    assert text.status_code == 415


async def test_a_request_that_ends_servers_does_not_reach_all_of_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = 0

    async def die(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1  # and the connection is closed

    async with AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(scripted(die)) for _ in range(4)]
        router = await stack.enter_async_context(routed(*ports))
        assert (await router.complete(prompt="a")).status_code == 502
    assert asked == 2
    assert (
        caplog.text.count("did not answer: it closed the connection before it had answered.") == 2
    )


async def test_all_down_is_a_503_that_says_when_to_come_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with routed(1, 2) as router:
        await router.backends.check()  # once more, about which nothing is said
        response = await router.complete(prompt="a", stream=True)
        health = await router.http.get("/health")
    for each in (response, health):
        assert each.status_code == 503 and each.headers["retry-after"] == "1"
    assert response.json()["error"]["type"] == "service_unavailable_error"
    said = [each.message for each in caplog.records if "not ready" in each.message]
    assert len(said) == 2 and "http://127.0.0.1:1" in said[0]


async def test_the_fallback_answers_with_its_own_key_and_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[bytes] = []

    async def outside(request: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(request)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\noutside")

    async def slow(_: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2.0)

    monkeypatch.setenv("THEIR_KEY", "theirs")
    async with scripted(outside) as out, scripted(slow) as behind:
        url = f"http://127.0.0.1:{out}/api/v1"
        apis = (
            FallbackApi(url="http://127.0.0.1:1/v1"),
            FallbackApi(url=url, api_key_env="THEIR_KEY", model="big"),
        )
        async with routed(behind, fallbacks=apis, try_timeout=0.5) as router:
            router.http.headers["authorization"] = "Bearer ours"
            response = await router.complete(model="tiny", prompt="a")
            stored = {"input": "a", "previous_response_id": "resp_1"}
            refused = await router.http.post("/v1/responses", json=stored)
            other = await router.http.post("/tokenize", json={"prompt": "a"})
            assert router.backends.all[0].is_healthy
            metrics = (await router.http.get("/metrics")).text
    assert 'backend="http://127.0.0.1:1/v1",reason="refused"} 1.0' in metrics
    assert f'backend="{url}",choice="fallback"}} 1.0' in metrics
    assert response.text == "outside" and (refused.status_code, other.status_code) == (503, 503)
    [request] = seen
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/v1/completions HTTP/1.1")
    assert b"Bearer theirs" in head and b"ours" not in head
    assert json.loads(body) == {"model": "big", "prompt": "a"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backends": ()}, "--backend"),
        ({"backends": ("ftp://x",)}, "no URL"),
        ({"backends": ("http://x", "http://x")}, "same URL"),
        ({"try_timeout": 0}, "--try-timeout"),
    ],
)
def test_settings_that_are_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RouterSettings(**{"backends": ("http://x",), **settings})


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
async def test_events_come_whole_however_they_are_cut(end: bytes) -> None:
    events = b"".join(b"data: %d" % number + end for number in range(3))

    async def drip(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(SSE)
        for start in range(0, len(events), 5):
            writer.write(chunk(events[start : start + 5]))
            await writer.drain()
            await asyncio.sleep(0.001)
        writer.write(chunk(b"rest") + b"0\r\n\r\n")

    async with scripted(drip) as port, routed(port) as router:
        body = {"prompt": "a", "stream": True}
        async with router.http.stream("POST", COMPLETIONS, json=body) as response:
            assert await response.aread() == events + b"rest"


def test_all_that_the_model_is_asked_for_is_passed_on() -> None:
    app = build_router(RouterSettings(backends=("http://a:1",)), Backends(("http://a:1",)))
    asked = {"/invocations", *(each.path for each in OPERATIONS)}
    for path in asked:
        scope = {"type": "http", "method": "POST", "path": path}
        assert any(route.matches(scope)[0] is Match.FULL for route in app.routes), path
