"""What the router counts, for Prometheus. A label is one of the router's own settings or words."""

from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from starlette.requests import Request
from starlette.responses import Response

from serve.router.backends import Backends


class RouterMetrics:
    """All metrics of one router."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.requests = self._counter("requests", "answers begun", "backend", "choice")
        self.retries = self._counter("retries", "tries that failed", "backend", "reason")
        self.broken = self._counter("broken", "answers that broke off", "backend")

    def collect(self) -> Iterator[Metric]:
        """The state of the backends, as it is now."""
        healthy = GaugeMetricFamily("ingot_router:healthy", "1 if it is ready", labels=["backend"])
        at_work = GaugeMetricFamily("ingot_router:at_work", "its requests", labels=["backend"])
        blocks = GaugeMetricFamily("ingot_router:blocks", "it has seen", labels=["backend"])
        for each in self._backends.all:
            healthy.add_metric([each.url], each.is_healthy)
            at_work.add_metric([each.url], each.at_work)
            blocks.add_metric([each.url], len(each.seen))
        yield from (healthy, at_work, blocks)

    async def route(self, _: Request) -> Response:
        """GET /metrics."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"ingot_router:{name}", text, labels, registry=self.registry)
