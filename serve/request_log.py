"""One line a request in the log: who asked for what, how it ended, how long it took. No texts.

INFO 200 POST /v1/chat/completions 0.412 s 8c1f...          --log-format text
{"level": "info", "request_id": "8c1f...", "status": 200, ...}            json
"""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("ingot.requests")


class RequestLog:
    """ASGI middleware that logs each request at its end, also one whose client left."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            fields = {
                "request_id": scope["state"]["request_id"],
                "method": scope["method"],
                "path": scope["path"][:200].encode("unicode_escape").decode(),
                "status": status or 499,  # nginx's number for a client that left
                "seconds": round(time.perf_counter() - start, 6),
                "client": (scope.get("client") or ("",))[0],
            }
            logger.info("%(status)d %(method)s %(path)s %(seconds).3f s %(request_id)s", fields)
