"""WS /v1/realtime over real sockets and a random Whisper, which hears two seconds at a time."""

import asyncio
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette

from serve.http.websockets import MAX_MESSAGE_BYTES
from serve.launcher import RenewableServer
from serve.realtime import route, session
from serve.settings import ServerSettings
from tests.serve.audio.application import application
from tests.serve.audio.speech_model import file_of, tone
from tests.serve.http import test_http_protocol
from tests.serve.http.test_http_protocol import exchange, listening, listening_to
from tests.serve.served import PATIENCE, Serve, until

pytest.importorskip("soundfile", reason="needs the extra audio")
pytest.importorskip("python_multipart", reason="needs the extra audio")
pytest.importorskip("wsproto", reason="needs the extra audio")
from wsproto import events

from tests.serve.audio.websocket_client import Socket, connected

pytestmark = pytest.mark.anyio
APPEND, COMMIT, UPDATE = "input_audio_buffer.append", "input_audio_buffer.commit", "session.update"
UPGRADE = (
    b"GET /v1/realtime HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: %d\r\n\r\n"
)


def pcm(seconds: float) -> bytes:
    return np.round(tone(seconds)[:, 0] * 2**15).astype("<i2").tobytes()


def in_base64(data: bytes) -> str:
    return b64encode(data).decode()


@asynccontextmanager
async def hearing(speech: tuple, **settings: Any) -> AsyncIterator[tuple[int, Starlette]]:
    async with application(speech, ServerSettings(**settings)) as app, listening_to(app) as port:
        yield port, app


@asynccontextmanager
async def talking(port: int, path: str = "/v1/realtime") -> AsyncIterator[Socket]:
    async with connected(port, path) as socket:
        assert await socket.hear() == {"status": 101}
        created = await socket.hear()
        assert created["type"] == "session.created" and created["id"].startswith("sess-")
        yield socket


async def transcript(app: Starlette, seconds: float) -> str:
    """What /v1/audio/transcriptions makes of the same samples."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        answer = await http.post(
            "/v1/audio/transcriptions", data={"model": "whisper", "language": "en"},
            files={"file": ("a.wav", file_of(tone(seconds)))},
        )  # fmt: skip
    text: str = answer.json()["text"]
    return text


async def idle(app: Starlette) -> None:
    """No request is at work, and no connection open."""
    service = app.routes[0].app.service  # type: ignore[attr-defined]
    await until(lambda: service.client.num_sequences == 0)
    text = ""
    while "vllm:websocket_connections_active 0.0" not in text:
        text = (await service.metrics.route(None)).body.decode()
        await asyncio.sleep(0)


async def test_speech_is_written_while_it_is_spoken_and_as_a_file_of_it(speech: tuple) -> None:
    async with hearing(speech) as (port, app), talking(port) as socket:
        socket.say(UPDATE, model="whisper", language="en")
        socket.say(COMMIT)
        data = pcm(5)
        for at in range(0, 80_000, 6_400):  # 0.2 seconds at a time, 2.5 of them
            socket.say(APPEND, audio=in_base64(data[at : at + 6_400]))
        first = await socket.hear()  # and nobody has said that it ends
        socket.say(APPEND, audio=in_base64(data[83_200:]), event_id="x")
        socket.say(COMMIT, final=True)
        *more, done = await socket.until("transcription.done")
        expected = await transcript(app, 5)
    deltas = [first, *more]
    assert {each["type"] for each in deltas} == {"transcription.delta"}
    assert done["text"] == "".join(each["delta"] for each in deltas).strip() == expected != ""
    assert done["usage"] == {"type": "duration", "seconds": 5}


async def test_utterances_follow_each_other(speech: tuple) -> None:
    async with hearing(speech) as (port, app), talking(port, "/v1/realtime?model=whisper") as one:
        one.say(UPDATE, language="en")
        texts = []
        for seconds in (1.5, 1.0):
            one.say(APPEND, audio=in_base64(pcm(seconds)))  # before it is begun
            one.say(COMMIT)
            one.say(COMMIT, final=True)
        one.say(COMMIT, final=True)  # of nothing
        for _ in range(3):
            texts.append((await one.until("transcription.done"))[-1]["text"])
        assert texts == [await transcript(app, 1.5), await transcript(app, 1.0), ""]
        one.writer.close()
        await idle(app)
        metrics = (await app.routes[0].app.service.metrics.route(None)).body.decode()  # type: ignore[attr-defined]
    assert "vllm:websocket_connections_total 1.0" in metrics
    assert "vllm:websocket_connection_duration_seconds_count 1.0" in metrics


WRONG: list[tuple[events.Event, str]] = [
    (events.TextMessage("{"), "invalid_json"),
    (events.TextMessage("[" * 20_000), "invalid_event"),
    (events.TextMessage("\0"), "invalid_json"),
    (events.BytesMessage(b"\0\xff"), "invalid_json"),
    (events.TextMessage("{}"), "invalid_event"),
    (events.TextMessage('{"type": "response.create\\u0000"}'), "invalid_event"),
    (events.TextMessage('{"type": "session.update", "session": {}}'), "invalid_event"),
    (events.TextMessage('{"type": "session.update", "model": "other"}'), "invalid_session"),
    (events.TextMessage('{"type": "session.update", "language": "xx"}'), "invalid_session"),
    (events.TextMessage('{"type": "input_audio_buffer.append", "audio": "%"}'), "invalid_event"),
    (events.TextMessage('{"type": "input_audio_buffer.append", "audio": ""}'), "invalid_audio"),
    (events.TextMessage('{"type": "input_audio_buffer.append", "audio": "AA=="}'), "invalid_audio"),
]


async def test_what_is_wrong_is_said_and_the_connection_goes_on(
    speech: tuple, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(session, "MAX_HELD_SECONDS", 2)
    async with hearing(speech) as (port, app), talking(port) as socket:
        for message, code in WRONG:
            socket.write(message)
            said = await socket.hear()
            assert (said["type"], said["code"]) == ("error", code), message
            assert said["error"].endswith(".")
        socket.say(APPEND, audio=in_base64(pcm(1.5)))
        socket.say(APPEND, audio=in_base64(pcm(1.0)))
        assert (await socket.hear())["code"] == "buffer_full"
        socket.say(UPDATE, language="en")
        socket.say(COMMIT, final=True)
        done = (await socket.until("transcription.done"))[-1]
        assert done["text"] == await transcript(app, 1.5)
    assert "Traceback" not in caplog.text


async def test_what_waits_to_be_heard_has_an_end(
    speech: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MAX_UTTERANCES", 1)
    async with hearing(speech) as (port, app), talking(port) as socket:
        pause = app.routes[0].app.service.pause  # type: ignore[attr-defined]
        pause.begin()
        socket.say(COMMIT, final=True)  # which waits for the end of the pause
        await until(lambda: pause._held == 1)
        socket.say(COMMIT, final=True)
        socket.say(COMMIT, final=True)
        assert (await socket.hear())["code"] == "too_many_utterances"
        pause.end()
        for _ in range(2):
            assert (await socket.hear())["type"] == "transcription.done"


async def test_who_may_not_connect_is_told_so_before(
    speech: tuple, serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ingot.requests")

    async def status(port: int, path: str = "/v1/realtime", **headers: str) -> int:
        async with connected(port, path, headers) as socket:
            code: int = (await socket.hear())["status"]
            return code

    key = {"authorization": "Bearer k"}
    settings = {"api_keys": ("k",), "allowed_origins": ("https://a.org",), "root_path": "/r"}
    async with hearing(speech, **settings, max_concurrent_requests_per_key=1) as (port, app):
        assert await status(port) == 401
        for path in ("/v1/realtime", "/r/v1/realtime"):
            await idle(app)
            assert await status(port, path, **key) == 101
        await idle(app)
        assert await status(port, "/v1/realtime?model=other", **key) == 404
        assert await status(port, "/v1/realtime?voice=x", **key) == 400
        assert await status(port, "/x/v1/realtime", **key) == 403
        for origin, code in (
            ("https://a.org", 101), (f"http://127.0.0.1:{port}", 101), ("https://b.org", 403),
            ("null", 403),
        ):  # fmt: skip
            await idle(app)
            assert await status(port, **key, origin=origin) == code, origin
        await idle(app)
        async with connected(port, headers=key) as first:
            assert await first.hear() == {"status": 101}
            assert await status(port, **key) == 429
    logged = [cast(dict, record.args) for record in caplog.records]
    assert Counter(each["status"] for each in logged) == {
        101: 5,
        403: 3,
        401: 1,
        404: 1,
        400: 1,
        429: 1,
    }
    assert {(each["method"], len(each["request_id"])) for each in logged} == {("GET", 32)}
    async with hearing(speech) as (port, _):
        monkeypatch.setattr(route, "MAX_CONNECTIONS", 1)
        async with talking(port):
            assert await status(port) == 503
        refused = await exchange(port, b"GET /v1/realtime HTTP/1.1\r\nHost: a\r\n\r\n")
        assert refused.startswith(b"HTTP/1.1 426") and b"is a WebSocket" in refused
        monkeypatch.setattr(route, "has_websockets", lambda: False)
        last = b"GET /v1/realtime HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        bare = await exchange(port, last)
        assert bare.startswith(b"HTTP/1.1 400") and b"ingot[audio]" in bare
    async with serve() as served, listening(served) as port:
        assert await status(port) == 400  # a model that hears nothing
        served.engine.drain()
        assert await status(port) == 503


async def test_broken_frames_end_the_connection_and_nothing_else(
    speech: tuple, caplog: pytest.LogCaptureFixture
) -> None:
    async with hearing(speech) as (port, app):
        async with talking(port) as socket:
            socket.write(events.TextMessage("x" * (MAX_MESSAGE_BYTES + 1)))
            assert await socket.hear() in ({"closed": 1009}, {"closed": None})
        for frame in (b"\xff" * 64, b"\x81\x02ab", b"\x81\x84\0\0\0\0\xff\xfe\xff\xfe"):
            async with talking(port) as socket:
                socket.writer.write(frame)
                assert (await socket.hear()).get("closed") in (1002, 1007, None)
        old = await exchange(port, UPGRADE % 7)
        assert old == b"" or old.startswith(b"HTTP/1.1 4")
        posted = await exchange(port, (UPGRADE % 13).replace(b"GET", b"PUT"))
        assert posted == b"" or posted.startswith(b"HTTP/1.1 4")
        await idle(app)
    assert "Traceback" not in caplog.text and "Exception" not in caplog.text


async def test_a_client_that_vanishes_leaves_nothing(speech: tuple) -> None:
    async with hearing(speech) as (port, app):
        service = app.routes[0].app.service  # type: ignore[attr-defined]
        for seconds in (8.0, 0.5):  # more than a window, and less, of which the rest is awaited
            async with talking(port) as socket:
                socket.say(COMMIT)
                socket.say(APPEND, audio=in_base64(pcm(seconds)))
                socket.say(UPDATE, language="xx")
                assert (await socket.until("error"))[-1]["code"] == "invalid_session"
                socket.writer.transport.abort()
            await idle(app)
        assert not service.client.flights
        assert not [task for task in asyncio.all_tasks() if "_hear_all" in repr(task)]


async def test_a_server_that_leaves_says_so(speech: tuple) -> None:
    async with hearing(speech) as (port, _):
        reader = talking(port)
        socket = await reader.__aenter__()
    assert await socket.hear() == {"closed": 1012}
    socket.writer.close()


async def test_a_server_that_is_replaced_sends_its_clients_to_the_next(
    speech: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[RenewableServer] = []

    def renewable(config: uvicorn.Config) -> RenewableServer:
        made.append(RenewableServer(config, on_started=lambda: None))
        return made[-1]

    monkeypatch.setattr(test_http_protocol, "Server", renewable)
    async with hearing(speech) as (port, _), talking(port) as socket:
        async with asyncio.timeout(PATIENCE):
            await made[0].retire()  # which returns when nobody is connected
        assert await socket.hear() == {"closed": 1012}
