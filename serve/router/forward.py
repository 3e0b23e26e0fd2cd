"""Forwarding a request: one backend after the other until one answers, then the chain of fallbacks.

    503, no connection, nothing in time   the next one is asked; the client has seen nothing yet
    nothing, and the server hangs         the same, once another one is ready
    any other status                      is the answer, whatever it is
    lost or hung in the middle            an error event in a stream, a 502 otherwise

The APIs behind `--fallback-url` come after all of them (`serve.fallback.chain`).
"""

import logging
from functools import partial
from typing import Literal

import msgspec
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from engine.errors import NotFoundError
from serve.audio.form import AUDIO_PATHS, FORM, FORM_BYTES
from serve.errors import TransportError, UnavailableError
from serve.fallback.chain import RESPONSES, FallbackChain
from serve.http.body import read_body
from serve.http.disconnect import ClientDisconnected, unless_disconnected
from serve.http.request_id import OWN_ID
from serve.operations.operator_routes import OPERATOR_PATHS
from serve.protocol.decoding import MAX_ID_CHARS
from serve.router.backends import Backend, Backends, Choice
from serve.router.metrics import RouterMetrics
from serve.router.prefixes import Beginning, beginning_of, session_of
from serve.router.relay import pass_on
from serve.router.settings import RouterSettings
from serve.router.upstream import Answer, Call, Failure, UpstreamError, ask

OPEN = "/open_session"
SESSION_HEADER = "x-session-id"  # vLLM's, where the body has no session_id
MAX_LOST = 2  # a request that ends the servers it is sent to must not reach all of them
_OF_ONE_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
     "te", "trailer", "transfer-encoding", "upgrade", "expect", "host", "content-length",
     "accept-encoding"}
)  # fmt: skip
logger = logging.getLogger("ingot.router")


class Forward:
    """ASGI application: every path that backends have."""

    def __init__(
        self, settings: RouterSettings, backends: Backends, metrics: RouterMetrics
    ) -> None:
        self._settings = settings
        self._backends = backends
        self._metrics = metrics
        self._chain = FallbackChain(settings.fallbacks, settings.try_timeout, self._told)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = b""
            if scope["method"] == "POST" and not scope["path"].endswith("/cancel"):
                body = await self._read(scope, receive)
            await unless_disconnected(receive, self._forward(scope, body, send))
        except ClientDisconnected:
            pass

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """JSON, or a form where the path takes one; raises as `read_body` does."""
        settings = self._settings
        if scope["path"] not in AUDIO_PATHS:
            return await read_body(scope, receive, settings.max_body_bytes)
        limit = settings.max_audio_clip_filesize_mb * 2**20 + FORM_BYTES
        return await read_body(scope, receive, limit, FORM)

    async def _forward(self, scope: Scope, body: bytes, send: Send) -> None:
        path = scope["path"]
        headers = Headers(scope=scope)
        call = Call(scope["method"], _target(scope), _passed_on(headers), body)
        beginning = beginning_of(body) if body else Beginning()
        if not beginning.family and (family := headers.get(SESSION_HEADER)):
            beginning = msgspec.structs.replace(beginning, family=family[:MAX_ID_CHARS])
        tried: list[Backend] = []
        lost = 0
        while found := self._backends.choose(beginning, tried, _stored(path)):
            tried.append(found[0])
            failure = await self._try(*found, call, beginning, path, send)
            if failure is None:
                return
            lost += failure == "lost"
            if lost == MAX_LOST:
                raise TransportError(502, f"{lost} servers were lost when they were asked this.")
        if await self._chain.answer(path, body, partial(pass_on, send, path)):
            return
        raise UnavailableError("No server can answer this now; try again soon.")

    async def _try(
        self,
        backend: Backend,
        choice: Choice,
        call: Call,
        beginning: Beginning,
        path: str,
        send: Send,
    ) -> Failure | Literal["503"] | None:
        """None if `backend` answered, or why it did not."""
        try:
            with backend.working(beginning):
                seconds = self._settings.try_timeout
                async with ask(backend.server, call, seconds, backend.waiting) as answer:
                    if answer.status == 503:
                        self._failed(backend.url, "503")
                        return "503"
                    self._metrics.requests.labels(backend.url, choice).inc()
                    self._backends.answered(beginning, backend)
                    if path in (RESPONSES, OPEN):
                        self._remember(answer, backend, beginning, path)
                    await self._pass_on(answer, backend.url, path, send)
                    return None
        except UpstreamError as error:
            backend.is_healthy = backend.is_healthy and error.kind == "timeout"
            self._failed(backend.url, error.kind)
            logger.warning("%s did not answer: %s.", backend.url, error)
            return error.kind

    def _remember(self, answer: Answer, backend: Backend, beginning: Beginning, path: str) -> None:
        """Who keeps what was asked for; its id is that of the request, unless that says one."""
        own = (answer.header(OWN_ID.encode()) or answer.header(b"x-request-id")).decode("latin-1")
        made = beginning.session or session_of(own) if path == OPEN else f"resp_{own}"
        self._backends.remember(made or "", backend)

    async def _pass_on(self, answer: Answer, name: str, path: str, send: Send) -> None:
        """The whole of it; raises TransportError if it breaks off before anything was sent."""
        try:
            whole = await pass_on(send, path, answer)
        except UpstreamError as error:
            self._metrics.broken.labels(name).inc()
            logger.warning("An answer broke off: %s.", error)
            raise TransportError(502, "The server that answered was lost.") from None
        if not whole:
            self._metrics.broken.labels(name).inc()

    def _told(self, url: str, outcome: str) -> None:
        """How an API of the chain took it."""
        if outcome == "answered":
            self._metrics.requests.labels(url, "fallback").inc()
        else:
            self._failed(url, outcome)

    def _failed(self, name: str, reason: str) -> None:
        self._metrics.retries.labels(name, reason).inc()


def _target(scope: Scope) -> str:
    """As the client wrote it; raises NotFoundError for one that could be read as another path, and
    for the operator's, who asks each server itself: who may ask this one may not be trusted there.
    """
    path: str = scope["path"]
    raw: bytes = scope.get("raw_path") or path.encode()
    odd = {".", ".."} & set(path.split("/")) or "//" in path or "\\" in path
    if odd or path in OPERATOR_PATHS:
        raise NotFoundError("There is no such path here.")
    query: bytes = scope["query_string"]
    target = raw.partition(b"?")[0] + (b"?" + query if query else b"")
    return target.decode("latin-1")


def _passed_on(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The client's headers, without those that are about its own connection."""
    named = {each.strip().lower() for each in headers.get("connection", "").split(",")}
    kept = [(k, v) for k, v in headers.items() if k not in _OF_ONE_HOP | named]
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in kept]


def _stored(path: str) -> str | None:
    """The id in /v1/responses/{id}, and in what is behind that."""
    if not path.startswith(RESPONSES + "/"):
        return None
    return path[len(RESPONSES) + 1 :].partition("/")[0]
