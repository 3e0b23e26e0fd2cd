"""How many requests there were and how long they took, by path, method and status, under the names
that FastAPI's instrumentator gives them, as vLLM's dashboards have it.

    http_requests_total{handler="/v1/completions", method="POST", status="2xx"}
    http_request_duration_seconds_bucket{handler=..., method=..., le="1"}
    http_request_size_bytes_sum{handler=...}      http_response_size_bytes_sum{handler=...}

Sizes are those of the Content-Length headers, 0 where there is none, as for streams.

Labels are bounded: a path that is not served is "none", a method that nobody has "other". What
orchestrators and Prometheus ask every few seconds is not counted, as in vLLM.
"""

import time
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, Summary
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_PROBES = frozenset(
    {"/health", "/livez", "/readyz", "/ready", "/ping", "/load", "/version", "/server_info",
     "/metrics"}
)  # fmt: skip
_NOT_SERVED, _OTHER = "none", "other"
_MOST_BYTES = 2**30  # of one body; whoever claims more is refused, and must not spoil the sum


class HttpMetrics:
    """The counters of one server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "http_requests", "HTTP requests", ("handler", "method", "status"), registry=registry
        )
        self._seconds = Histogram(
            "http_request_duration_seconds", "until the end of the response",
            ("handler", "method"), buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._received, self._sent = (
            Summary(f"http_{name}_size_bytes", "of bodies", ("handler",), registry=registry)
            for name in ("request", "response")
        )
        self._of = cache(self._labelled)  # finding them takes longer than counting

    def observe(
        self, handler: str, method: str, status: int, seconds: float, sizes: tuple[int, int]
    ) -> None:
        """A request has ended; status 0 is one whose client left before it had an answer. `sizes`
        are bytes of its body and of the answer's."""
        method = method if method in _METHODS else _OTHER
        group = f"{status // 100}xx" if status else "4xx"
        requests, durations, received, sent = self._of(handler, method, group)
        requests.inc()
        durations.observe(seconds)
        received.observe(sizes[0])
        sent.observe(sizes[1])

    def _labelled(
        self, handler: str, method: str, group: str
    ) -> tuple[Counter, Histogram, Summary, Summary]:
        return (
            self._requests.labels(handler, method, group),
            self._seconds.labels(handler, method),
            self._received.labels(handler),
            self._sent.labels(handler),
        )


class MeasureHttp:
    """ASGI middleware around everything, which looks at a request once it has ended."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics, routes: Sequence[Route]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = {route.path for route in routes if not route.param_convertors}
        self._templates = {route.endpoint: route.path for route in routes if route.param_convertors}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        start, failed = time.perf_counter(), True
        try:
            await self._app(scope, receive, send)
            failed = False
        finally:
            status = scope["state"].get("status", 500 if failed else 0)
            seconds = time.perf_counter() - start
            sizes = length_of(scope["headers"]), scope["state"].get("length", 0)
            self._metrics.observe(self._handler(scope), scope["method"], status, seconds, sizes)

    def _handler(self, scope: Any) -> str:
        if scope["path"] in self._paths:
            return str(scope["path"])
        return self._templates.get(scope.get("endpoint"), _NOT_SERVED)


def length_of(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Bytes of the body that these are about; 0 where they do not say, or say nonsense."""
    told = next((value for name, value in headers if name == b"content-length"), b"")
    return min(int(told[:20]), _MOST_BYTES) if told.isdigit() else 0
