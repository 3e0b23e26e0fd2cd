"""A server-made id for every request, returned as `x-request-id`.

Ids that clients send in headers are neither used nor repeated: they may collide, or hold anything.
A body's `request_id` or `rid` names its response and nothing else.
"""

import secrets

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class RequestIds:
    """ASGI middleware that sets `scope["state"]["request_id"]` and the response header, and
    `scope["state"]["status"]` once there is one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(16)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
                state["status"] = message["status"]
            await send(message)

        await self._app(scope, receive, send_with_id)
