"""One request to another server, on asyncio and h11: its status at once, its body as it comes.

Owns a connection from its opening to its end; leaving the context closes it, which is how the other
server learns that nobody waits any more.
"""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Literal

import h11

from serve.errors import TransportError
from serve.http.server_address import ServerAddress

CONNECT_SECONDS = 5.0
_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # given up in 60 s
_READ = 64 * 1024
_MAX_HEAD = 64 * 1024

Headers = Sequence[tuple[bytes, bytes]]


Failure = Literal["refused", "lost", "timeout"]  # before anything was sent, after, neither


class UpstreamError(Exception):
    """There is no answer; `kind` says in what way, and `silent` that nothing was heard at all."""

    def __init__(self, message: str, kind: Failure = "lost", *, silent: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.silent = silent


@dataclass(frozen=True)
class Call:
    """What is asked."""

    method: str
    target: str
    headers: Headers
    body: bytes


@dataclass(frozen=True)
class Answer:
    """A status with headers, and the body that follows; reading it raises UpstreamError."""

    status: int
    headers: Headers
    body: AsyncIterator[bytes]

    def header(self, name: bytes) -> bytes:
        return next((value for key, value in self.headers if key == name), b"")

    @property
    def is_stream(self) -> bool:
        """Whether it comes in events."""
        return self.header(b"content-type").startswith(b"text/event-stream")


class Waiting:
    """What a server is awaited for: answers, and their next pieces. It can be given up."""

    def __init__(self) -> None:
        self._since: dict[asyncio.Timeout, float] = {}

    @asynccontextmanager
    async def at_most(self, seconds: float | None) -> AsyncIterator[None]:
        """Raises UpstreamError."""
        try:
            async with asyncio.timeout(seconds) as deadline:
                self._since[deadline] = asyncio.get_running_loop().time()
                try:
                    yield
                finally:
                    del self._since[deadline]
        except TimeoutError:
            raise UpstreamError("it took too long", "timeout", silent=True) from None

    def give_up(self, seconds: float) -> None:
        """What has been awaited for so long, as if its time were over."""
        now = asyncio.get_running_loop().time()
        for deadline, since in self._since.items():
            if now - since >= seconds and not deadline.expired():
                deadline.reschedule(now)


@asynccontextmanager
async def ask(
    server: ServerAddress, call: Call, seconds: float | None = None, waiting: Waiting | None = None
) -> AsyncIterator[Answer]:
    """`seconds` is how long the status may take, and the first piece of a stream.

    Raises UpstreamError, or TransportError for what cannot be asked.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
    request = _written(connection, server, call)
    reader, writer = await _connect(server)
    waiting = waiting or Waiting()
    try:
        async with waiting.at_most(seconds):
            answer = await _begun(connection, reader, writer, request, waiting)
        yield answer
    finally:
        writer.close()


async def _connect(server: ServerAddress) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                server.host, server.port, ssl=server.trusted
            )
    except (OSError, TimeoutError) as error:
        silent = isinstance(error, TimeoutError) or error.errno == errno.EHOSTUNREACH
        said = str(error) or "it cannot be reached"
        raise UpstreamError(said, "refused", silent=silent) from None
    _keep_alive(writer.get_extra_info("socket"))
    return reader, writer


def _keep_alive(connection: socket.socket) -> None:
    """Have the system ask whether the other machine is still there: an answer may be silent for as
    long as a model thinks, and one that was switched off says nothing either."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if (option := getattr(socket, name, None)) is not None:  # not every system has them
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _written(connection: h11.Connection, server: ServerAddress, call: Call) -> bytes:
    own = [
        (b"host", server.host_header.encode()),
        (b"connection", b"close"),
        (b"accept-encoding", b"identity"),
        (b"content-length", str(len(call.body)).encode()),
    ]
    try:
        request = h11.Request(
            method=call.method, target=server.path + call.target, headers=[*own, *call.headers]
        )
        parts = (request, h11.Data(data=call.body), h11.EndOfMessage())
        return b"".join(connection.send(part) or b"" for part in parts)
    except h11.LocalProtocolError:
        raise TransportError(400, "The request cannot be passed on.") from None


async def _begun(
    connection: h11.Connection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    request: bytes,
    waiting: Waiting,
) -> Answer:
    """With its first piece if it is a stream: some servers send their status before they know
    whether they can answer."""
    response = await _head(connection, reader, writer, request)
    headers = [(bytes(name), bytes(value)) for name, value in response.headers]
    answer = Answer(response.status_code, headers, _body(connection, reader, waiting))
    if answer.is_stream:
        first = await anext(answer.body, b"")
        answer = replace(answer, body=_joined(first, answer.body))
    return answer


async def _head(
    connection: h11.Connection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    request: bytes,
) -> h11.Response:
    try:
        writer.write(request)
        await writer.drain()
        while not isinstance(event := connection.next_event(), h11.Response):
            if event is h11.NEED_DATA:
                if not (data := await reader.read(_READ)):
                    raise UpstreamError("it closed the connection before it had answered")
                connection.receive_data(data)
            elif not isinstance(event, h11.InformationalResponse):
                raise UpstreamError("what it said is no answer")
        return event
    except (OSError, h11.RemoteProtocolError) as error:
        raise UpstreamError(str(error)) from None


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


async def _body(
    connection: h11.Connection, reader: asyncio.StreamReader, waiting: Waiting
) -> AsyncIterator[bytes]:
    try:
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif event is h11.NEED_DATA:
                async with waiting.at_most(None):
                    data = await reader.read(_READ)
                connection.receive_data(data)
            else:
                raise UpstreamError("it closed the connection in the middle of its answer")
    except (OSError, h11.RemoteProtocolError) as error:
        raise UpstreamError(str(error)) from None
