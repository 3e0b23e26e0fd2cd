"""A WebSocket client over a real socket, with nothing but wsproto."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from wsproto import ConnectionType, WSConnection, events

from tests.serve.served import PATIENCE


class Socket:
    """One connection; what the server closes or refuses is an event like the others."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self._connection = WSConnection(ConnectionType.CLIENT)
        self._partial = ""

    def write(self, event: events.Event) -> None:
        self.writer.write(self._connection.send(event))

    def say(self, kind: str, **fields: Any) -> None:
        self.write(events.TextMessage(json.dumps({"type": kind, **fields})))

    async def hear(self) -> dict[str, Any]:
        """The next thing that the server says."""
        while True:
            for event in self._connection.events():
                match event:
                    case events.TextMessage():
                        self._partial += event.data
                        if event.message_finished:
                            text, self._partial = self._partial, ""
                            said: dict[str, Any] = json.loads(text)
                            return said
                    case events.CloseConnection():
                        return {"closed": event.code}
                    case events.RejectConnection():
                        return {"status": event.status_code}
                    case events.AcceptConnection():
                        return {"status": 101}
                    case events.Ping():
                        self.write(event.response())
            async with asyncio.timeout(PATIENCE):
                data = await self._reader.read(2**16)
            if not data:
                return {"closed": None}
            self._connection.receive_data(data)

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """All that is said up to an event of that kind."""
        said = [await self.hear()]
        while said[-1].get("type") != kind:
            assert "closed" not in said[-1], said
            said.append(await self.hear())
        return said


@asynccontextmanager
async def connected(
    port: int, path: str = "/v1/realtime", headers: Mapping[str, str] | None = None
) -> AsyncIterator[Socket]:
    """The first thing to be heard is the status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    socket = Socket(reader, writer)
    extra = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    socket.write(events.Request(host=f"127.0.0.1:{port}", target=path, extra_headers=extra))
    try:
        yield socket
    finally:
        writer.close()
