"""Clients that send too slowly are cut off, over a real socket."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from serve.http import body, http_protocol
from serve.http.disconnect import ClientDisconnected, unless_disconnected
from serve.http.listener import bind
from serve.http.websockets import websocket_settings
from serve.launcher import Server
from serve.settings import ServerSettings
from tests.serve.served import PATIENCE, Serve, Served, until

pytestmark = pytest.mark.anyio

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
REQUEST = b'{"prompt":"a","max_tokens":1}'


@asynccontextmanager
async def listening(served: Served) -> AsyncIterator[int]:
    async with listening_to(served.app) as port:
        yield port


@asynccontextmanager
async def listening_to(app: Starlette) -> AsyncIterator[int]:
    listener = bind(ServerSettings(port=0))
    port: int = listener.getsockname()[1]
    config = uvicorn.Config(
        app, http=http_protocol.HardenedProtocol, lifespan="off", log_config=None,
        **websocket_settings(),
    )  # fmt: skip
    server = Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield port
    finally:
        server.should_exit = True
        await task


async def exchange(port: int, *pieces: bytes, pause: float = 0.05) -> bytes:
    """Everything the server says until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(pause)
    try:
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("begun", [b"", b"GET /health HTTP/1.1\r\nHo"])
async def test_headers_must_come_in_time(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(http_protocol, "HEADER_SECONDS", 0.1)
    async with serve() as served, listening(served) as port:
        assert await exchange(port, begun) == b""
        monkeypatch.setattr(http_protocol, "HEADER_SECONDS", 0.5)  # for those of the first
        second = await exchange(port, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /he")
        assert second.startswith(b"HTTP/1.1 200") and second.count(b"HTTP/1.1") == 1


async def test_a_running_request_has_no_deadline(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEADER_SECONDS", 0.5)
    async with serve() as served, listening(served) as port:
        served.core.step_seconds = 1.0
        length = b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(REQUEST)
        assert b'"text":"a"' in await exchange(port, HEAD + length + REQUEST)


async def test_a_body_behind_another_request_has_its_own_deadline(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEADER_SECONDS", 0.2)
    length = b"Content-Length: %d\r\n" % len(REQUEST)
    two = HEAD + length + b"\r\n" + REQUEST + HEAD + length + b"Connection: close\r\n\r\n{"
    async with serve() as served, listening(served) as port:
        answers = await exchange(port, two, REQUEST[1:], pause=0.3)
    assert answers.count(b'"text":"a"') == 2


async def test_a_body_must_come_in_time(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_SECONDS", 0.1)
    async with serve() as served, listening(served) as port:
        answer = await exchange(port, HEAD + b"Content-Length: 100\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408") and b"connection: close" in answer


async def test_a_broken_body_ends_its_request_quietly(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve() as served, listening(served) as port:
        chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        answer = await exchange(port, chunked, b'5\r\n{"pro\r\nzz\r\n')
        assert answer.startswith(b"HTTP/1.1 400")
        assert await exchange(
            port, HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
    assert "Exception" not in caplog.text


async def test_a_body_over_the_limit_closes_the_connection(serve: Serve) -> None:
    async with serve() as served, listening(served) as port:
        too_long = HEAD + b"Content-Length: 100000000\r\n\r\n"
        answer = await exchange(port, too_long)
    assert answer.startswith(b"HTTP/1.1 413") and b"connection: close" in answer


async def test_a_body_of_very_many_pieces_is_refused(serve: Serve) -> None:
    text = b'{"prompt":"a","max_tokens":1}' + b" " * 1971
    chunks = HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serve() as served, listening(served) as port:
        for body, status, said in ((text[:900], b"200", b"id"), (text, b"400", b"send larger")):
            pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
            answer = await exchange(port, chunks + pieces)
            assert answer.startswith(b"HTTP/1.1 " + status) and said in answer


@pytest.mark.parametrize("ending", [b"", b"Connection: close\r\n"])
async def test_who_still_sends_can_read_the_answer(serve: Serve, ending: bytes) -> None:
    async with serve(ServerSettings(max_body_bytes=2**20)) as served, listening(served) as port:
        head = HEAD + ending + b"Content-Length: %d\r\n\r\n" % 2**24
        assert (await exchange(port, head + bytes(2**24))).startswith(b"HTTP/1.1 413")


async def test_what_is_read_into_nothing_has_a_deadline(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEADER_SECONDS", 0.2)
    async with serve() as served, listening(served) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 404 Not Found\r\n"
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionError):
                while True:
                    writer.write(b"a")
                    await writer.drain()
                    await asyncio.sleep(0.2)
        writer.close()


class Flood:
    """An application that pours out a stream as long as its client takes it."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await receive()
            await unless_disconnected(receive, self._pour(send))
        except ClientDisconnected:
            self.left.set()

    async def _pour(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 2**16, "more_body": True})
            await asyncio.sleep(0)


async def test_a_client_that_never_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "STALLED_SECONDS", 0.1)
    flood = Flood()
    async with listening(SimpleNamespace(app=flood)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in range(100):  # one that reads is given all the time that it needs
            await reader.readexactly(2**16)
        assert not flood.left.is_set()
        async with asyncio.timeout(5):
            await flood.left.wait()
        writer.close()


class Sending(asyncio.Transport):
    """A connection whose client has left so many bytes unread, each time somebody looks."""

    def __init__(self, *unread: int) -> None:
        super().__init__()
        self.unread = list(unread)
        self.aborted = asyncio.Event()

    def get_write_buffer_size(self) -> int:
        return self.unread.pop(0)

    def abort(self) -> None:
        self.aborted.set()


def paused(transport: Sending) -> http_protocol.HardenedProtocol:
    config = uvicorn.Config(Flood(), lifespan="off", log_config=None)
    config.load()
    protocol = http_protocol.HardenedProtocol(config, ServerState(), {})
    protocol.connection_made(transport)
    protocol.pause_writing()
    return protocol


async def test_one_that_reads_slowly_may_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "STALLED_SECONDS", 0)
    transport = Sending(2**24, 2**23, 2**23 - 1, 2**23 + 4)
    protocol = paused(transport)
    await until(transport.aborted.is_set)
    protocol.connection_lost(ConnectionAbortedError())
    assert transport.unread == []


async def test_nothing_waits_for_a_client_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "STALLED_SECONDS", 0)
    transport = Sending(9, 9)
    paused(transport).connection_lost(ConnectionResetError())
    await asyncio.sleep(0.01)
    assert transport.unread == [9] and not transport.aborted.is_set()


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_stream_is_framed_as_the_client_s_version_wants(version: bytes) -> None:
    pieces = [b"data: a\n\n", b"", b"data: b\n\n"]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    head = b"GET / HTTP/%s\r\nHost: a\r\nConnection: close\r\n\r\n"
    async with listening(SimpleNamespace(app=app)) as port:
        answer = await exchange(port, head % version)
        without = await exchange(port, head.replace(b"GET", b"HEAD") % version)
    whole, chunked = b"".join(pieces), b"9\r\ndata: a\n\n\r\n9\r\ndata: b\n\n\r\n0\r\n\r\n"
    assert answer.partition(b"\r\n\r\n")[2] == (whole if version == b"1.0" else chunked)
    assert without.partition(b"\r\n\r\n")[2] == b""


async def test_answers_do_not_wait_for_acknowledgements() -> None:
    """asyncio switches Nagle's algorithm off only for sockets that say they are TCP's."""
    delays: list[int] = []
    done = asyncio.Event()

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        delays.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()
        done.set()

    listener = bind(ServerSettings(port=0))
    async with await asyncio.start_server(handle, sock=listener):
        _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
        await done.wait()
        writer.close()
    assert delays and all(delays)
