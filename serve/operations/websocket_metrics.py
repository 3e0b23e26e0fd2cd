"""How many WebSockets there are, and how long they last; vLLM's names."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


class WebsocketMetrics:
    """Of one server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name = "vllm:websocket_connection"
        self._active = Gauge(f"{name}s_active", "WebSockets that are open", registry=registry)
        self._total = Counter(f"{name}s", "WebSockets that were opened", registry=registry)
        self._seconds = Histogram(
            f"{name}_duration_seconds", "of WebSockets", buckets=_SECONDS, registry=registry
        )

    @contextmanager
    def open(self) -> Iterator[None]:
        """While one is open."""
        self._total.inc()
        with self._active.track_inprogress(), self._seconds.time():
            yield
