"""How many operations of sleep mode are at work, and how long they take; vLLM's names and buckets.

vllm:sleep_mode_operation_duration_seconds_bucket{operation="wake", le="1"}
vllm:sleep_mode_operations_in_flight{operation="sleep" | "release_kv_cache_memory" | "wake"}
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Gauge, Histogram

_SECONDS = (0.01, 0.1, 1, 10, 30, 60, 120, 300, 600)


class SleepMetrics:
    """Of one server."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name, labels = "vllm:sleep_mode_operation", ("operation",)
        self._in_flight = Gauge(
            f"{name}s_in_flight", "operations that have not ended", labels, registry=registry
        )
        self._seconds = Histogram(
            f"{name}_duration_seconds", "of operations", labels, buckets=_SECONDS, registry=registry
        )

    @contextmanager
    def at_work(self, operation: str) -> Iterator[None]:
        """While one is, whether it succeeds or not."""
        with (
            self._in_flight.labels(operation).track_inprogress(),
            self._seconds.labels(operation).time(),
        ):
            yield
