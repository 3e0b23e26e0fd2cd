"""A server-made id for every request, returned as `x-request-id`.

Ids that clients send in headers are not used: they may collide, or hold anything. With
`--enable-request-id-headers` the response repeats one that is letters, digits and `_.:-`.
A body's `request_id` or `rid` names its response and nothing else.
"""

import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PLAIN = re.compile(r"[\w.:-]{1,128}", re.ASCII)


class RequestIds:
    """ASGI middleware that sets `scope["state"]["request_id"]` and the response header, and
    `scope["state"]["status"]` once there is one."""

    def __init__(self, app: ASGIApp, repeat: bool = False) -> None:
        """`repeat`: a request's own id goes into its response."""
        self._app = app
        self._repeat = repeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(16)
        state = scope.setdefault("state", {})
        state["request_id"] = shown = request_id
        if self._repeat:
            given = Headers(scope=scope).get("x-request-id", "")
            shown = given if _PLAIN.fullmatch(given) else request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = shown
                state["status"] = message["status"]
            await send(message)

        await self._app(scope, receive, send_with_id)
