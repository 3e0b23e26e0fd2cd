"""`ingot serve --fallback-url`: what this engine does not answer, an API of the chain may.

    request ──▶ this server ─┬─ begins to answer ─▶ client
                             └─ 5xx, or nothing in time ─▶ FallbackChain ─▶ client
                                                              └─ nobody ─▶ what was refused with

Nothing is sent before somebody has begun, and nobody is asked afterwards. Owns the holding back;
who is asked, and how, is `chain`'s.
"""

import asyncio
from functools import partial

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import UnavailableError, early_response
from serve.fallback.chain import PATHS, SENT_BY_FALLBACK, FallbackChain
from serve.http.disconnect import ClientDisconnected, unless_disconnected
from serve.router.relay import pass_on

_SERVER_ERROR = 500


class Fallback:
    """ASGI middleware behind the keys, for requests that APIs of the chain take as well."""

    def __init__(self, app: ASGIApp, chain: FallbackChain, seconds: float | None) -> None:
        """`seconds` is how long this server's answer may take to begin."""
        self._app = app
        self._chain = chain
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _may_fall_back(scope):
            await self._app(scope, receive, send)
            return
        own = _OwnAnswer(receive, send)
        if await own.begins(self._app, scope, self._seconds):
            return
        try:
            work = self._answer(scope["path"], own, scope, receive, send)
            await unless_disconnected(receive, work)
        except ClientDisconnected:
            pass

    async def _answer(
        self, path: str, own: "_OwnAnswer", scope: Scope, receive: Receive, send: Send
    ) -> None:
        if await self._chain.answer(path, bytes(own.body), partial(pass_on, send, path)):
            return
        for message in own.refusal:
            await send(message)
        if not own.refusal:
            late = UnavailableError("No server can answer this now; try again soon.")
            await early_response(path, late)(scope, receive, send)


def _may_fall_back(scope: Scope) -> bool:
    if scope["method"] != "POST" or scope["path"] not in PATHS:
        return False
    return SENT_BY_FALLBACK.decode() not in Headers(scope=scope)


class _OwnAnswer:
    """This server's, which is let through once it has begun well."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._begun = asyncio.Event()
        self.body = bytearray()  # of the request
        self.refusal: list[Message] = []

    async def begins(self, app: ASGIApp, scope: Scope, seconds: float | None) -> bool:
        """Let `app` answer; False if it refused, or has not begun within `seconds`."""
        task = asyncio.ensure_future(_run(app, scope, self._hear, self._take))
        begun = asyncio.ensure_future(self._begun.wait())
        try:
            await asyncio.wait({task, begun}, timeout=seconds, return_when="FIRST_COMPLETED")
            if self._begun.is_set() or (task.done() and not self.refusal):
                await task
                return True
            if task.done():
                await task
            else:
                self.refusal.clear()  # it would not be whole
            return False
        finally:
            begun.cancel()
            task.cancel()
            await asyncio.gather(task, begun, return_exceptions=True)

    async def _hear(self) -> Message:
        message = await self._receive()
        self.body += message.get("body", b"")
        return message

    async def _take(self, message: Message) -> None:
        refused = bool(self.refusal)
        if message["type"] == "http.response.start":
            refused = message["status"] >= _SERVER_ERROR
        if refused:
            self.refusal.append(message)
        else:
            self._begun.set()
            self.body.clear()  # nobody else will need it
            await self._send(message)


async def _run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)
