"""A generation route as an ASGI application: read, decode, serve; stop when the client leaves."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic

import msgspec
from starlette.types import Receive, Scope, Send

from serve.body import read_body
from serve.disconnect import ClientDisconnected, unless_disconnected
from serve.protocol import RequestT, decode_request
from serve.service import Service


class GenerationRoute(ABC, Generic[RequestT]):
    """A subclass says what it takes and how it answers; everything else is the same for all."""

    kind: ClassVar[type]
    writes: ClassVar[bool] = True  # needs a model that writes text

    def __init__(self, service: Service) -> None:
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await read_body(scope, receive, self.service.settings.max_body_bytes)
            request: RequestT = decode_request(body, self.kind)
            if self.writes:
                self.service.check_writes()
            request_id = scope["state"]["request_id"]
            await unless_disconnected(receive, self.answer(request, request_id, send))
        except ClientDisconnected:
            pass

    @abstractmethod
    async def answer(self, request: RequestT, request_id: str, send: Send) -> None:
        """Send the whole response; raises an IngotError before anything is sent."""


async def send_json(send: Send, value: msgspec.Struct | Sequence[msgspec.Struct]) -> None:
    """A whole response with status 200."""
    body = msgspec.json.encode(value)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
