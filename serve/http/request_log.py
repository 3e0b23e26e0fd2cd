"""One line a request in the log: who asked for what, how it ended, how long it took. No texts.
A WebSocket is a request with the status 101 that takes as long as it is open.

INFO 200 POST /v1/chat/completions 0.412 s 8c1f...          --log-format text
{"level": "info", "request_id": "8c1f...", "status": 200, ...}            json
"""

import logging
import time

from starlette.types import ASGIApp, Receive, Scope, Send

_CLIENT_LEFT = 499  # nginx's number
logger = logging.getLogger("ingot.requests")


class RequestLog:
    """ASGI middleware that logs each request at its end, also one whose client left, while the
    logger's level is that of an operator who wants it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not logger.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        try:
            await self._app(scope, receive, send)
        finally:
            fields = {
                "request_id": scope["state"]["request_id"],
                "method": scope.get("method", "GET"),  # a WebSocket's
                "path": shown_path(scope),
                "status": scope["state"].get("status", _CLIENT_LEFT),
                "seconds": round(time.perf_counter() - start, 6),
                "client": (scope.get("client") or ("",))[0],
            }
            line = "%(status)d %(method)s %(path)s %(seconds).3f s %(request_id)s"
            if theirs := scope["state"]["client_request_id"]:
                fields["client_request_id"] = theirs
                line += " %(client_request_id)s"
            logger.info(line, fields)


def shown_path(scope: Scope) -> str:
    """As a log may have it: short, and on one line."""
    path: str = scope["path"]
    return path[:200].encode("unicode_escape").decode()
