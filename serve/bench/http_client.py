"""An HTTP/1.1 client for load: one connection a request, answers piece by piece.

On asyncio and h11 alone, so that what is measured is the server and not the client.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping

import h11

from serve.http.server_address import ServerAddress

_READ = 64 * 1024


class HttpError(Exception):
    """The server answered with another status than 200, or with something that is no HTTP."""

    def __init__(self, said: str, status: int = 0) -> None:
        super().__init__(said)
        self.status = status


class Server(ServerAddress):
    """A server that is asked."""

    async def send(
        self, method: str, endpoint: str, body: bytes = b"", headers: Mapping[str, str] = {}
    ) -> AsyncIterator[bytes]:
        """The answer's pieces as they come; raises HttpError, OSError."""
        reader, writer = await asyncio.open_connection(self.host, self.port, ssl=self.trusted)
        try:
            connection = h11.Connection(h11.CLIENT)
            given = {
                "host": self.host_header,
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
