"""How many requests there were and how long they took, by path, method and status, under the names
that FastAPI's instrumentator gives them, as vLLM's dashboards have it.

    http_requests_total{handler="/v1/completions", method="POST", status="2xx"}
    http_request_duration_seconds_bucket{handler=..., method=..., le="1"}

Labels are bounded: a path that is not served is "none", a method that nobody has "other". What
orchestrators and Prometheus ask every few seconds is not counted, as in vLLM.
"""

import time
from collections.abc import Sequence
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_PROBES = frozenset(
    {"/health", "/livez", "/readyz", "/ping", "/load", "/version", "/server_info", "/metrics"}
)
_NOT_SERVED, _OTHER = "none", "other"


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
        self._of = cache(self._labelled)  # finding them takes longer than counting

    def observe(self, handler: str, method: str, status: int, seconds: float) -> None:
        """A request has ended; status 0 is one whose client left before it had an answer."""
        method = method if method in _METHODS else _OTHER
        requests, durations = self._of(handler, method, f"{status // 100}xx" if status else "4xx")
        requests.inc()
        durations.observe(seconds)

    def _labelled(self, handler: str, method: str, group: str) -> tuple[Counter, Histogram]:
        requests = self._requests.labels(handler, method, group)
        return requests, self._seconds.labels(handler, method)


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
            self._metrics.observe(self._handler(scope), scope["method"], status, seconds)

    def _handler(self, scope: Any) -> str:
        if scope["path"] in self._paths:
            return str(scope["path"])
        return self._templates.get(scope.get("endpoint"), _NOT_SERVED)
