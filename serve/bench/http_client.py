"""An HTTP/1.1 client for load: one connection a request, answers piece by piece.

On asyncio and h11 alone, so that what is measured is the server and not the client.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

from engine.errors import ConfigError

_READ = 64 * 1024


class HttpError(Exception):
    """The server answered with another status than 200, or with something that is no HTTP."""

    def __init__(self, said: str, status: int = 0) -> None:
        super().__init__(said)
        self.status = status


@dataclass(frozen=True)
class Server:
    """Where a server is."""

    host: str
    port: int
    tls: bool
    path: str  # before every endpoint

    @classmethod
    def parse(cls, url: str) -> "Server":
        """Raises ConfigError for what is no http:// or https:// URL."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigError(f"{url!r} is no URL; write http://127.0.0.1:8000.") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is no URL; write http://127.0.0.1:8000.")
        tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if tls else 80), tls, parts.path.rstrip("/"))

    async def send(
        self, method: str, endpoint: str, body: bytes = b"", headers: Mapping[str, str] = {}
    ) -> AsyncIterator[bytes]:
        """The answer's pieces as they come; raises HttpError, OSError."""
        secure = ssl.create_default_context() if self.tls else None
        reader, writer = await asyncio.open_connection(self.host, self.port, ssl=secure)
        try:
            connection = h11.Connection(h11.CLIENT)
            given = {
                "host": f"{self.host}:{self.port}",
                "connection": "close",
                "content-type": "application/json",
                "content-length": str(len(body)),
                **headers,
            }
            request = h11.Request(
                method=method, target=self.path + endpoint, headers=list(given.items())
            )
            parts = (request, h11.Data(data=body), h11.EndOfMessage())
            writer.write(b"".join(connection.send(part) or b"" for part in parts))
            await writer.drain()
            async for piece in _answer(connection, reader):
                yield piece
        finally:
            writer.close()

    async def fetch(
        self, method: str, endpoint: str, body: bytes = b"", headers: Mapping[str, str] = {}
    ) -> bytes:
        """The whole answer."""
        return b"".join([piece async for piece in self.send(method, endpoint, body, headers)])


async def _answer(connection: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    failed, said = 0, b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise HttpError(f"The answer is no HTTP: {error}.") from None
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_READ))
        elif isinstance(event, h11.Response):
            failed = event.status_code if event.status_code != 200 else 0
        elif isinstance(event, h11.Data):
            if failed:
                said += bytes(event.data)
            else:
                yield bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            break
        else:
            raise HttpError("The server closed the connection before it had answered.")
    if failed:
        raise HttpError(f"status {failed}: {said[:300].decode('utf-8', 'replace')}", failed)
