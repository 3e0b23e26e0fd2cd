"""A server-made id for every request, returned as `x-request-id`.

Nothing is ever named by an id that a client sends in that header: it may collide with another's, or
hold anything. One that is short and plain is logged; with `--enable-request-id-headers` a response
repeats it, and has the server's in `x-ingot-request-id`. A body's `request_id` or `rid` names its
response and nothing else.
"""

import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.operations.http_metrics import length_of

OWN_ID = "x-ingot-request-id"
_STARTS = ("http.response.start", "websocket.http.response.start", "websocket.accept")
_SWITCHED, _FORBIDDEN = 101, 403
_PLAIN = re.compile(r"[\w.:-]{1,128}", re.ASCII)


class RequestIds:
    """ASGI middleware that sets `scope["state"]["request_id"]`, `client_request_id`, which is None
    if there is none, and the response headers; and once there is a response, its `status` and
    `length`."""

    def __init__(self, app: ASGIApp, repeat: bool = False) -> None:
        """`repeat`: a request's own id goes into its response."""
        self._app = app
        self._repeat = repeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = secrets.token_hex(16)
        given = Headers(scope=scope).get("x-request-id", "")
        theirs = given if _PLAIN.fullmatch(given) else None
        state = scope.setdefault("state", {})
        state |= {"request_id": request_id, "client_request_id": theirs}

        async def send_with_id(message: Message) -> None:
            if message["type"] in _STARTS:
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if self._repeat and theirs is not None:
                    headers["x-request-id"], headers[OWN_ID] = theirs, request_id
                state["status"] = message.get("status", _SWITCHED)
                state["length"] = length_of(message["headers"])
            elif message["type"] == "websocket.close":  # of none that was accepted: uvicorn's 403
                state.setdefault("status", _FORBIDDEN)
            await send(message)

        await self._app(scope, receive, send_with_id)
