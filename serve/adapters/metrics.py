"""`vllm:lora_requests_info`: the adapters of requests at work, by which gateways choose a server.

Labels are names that the operator gave; the value is the time, as in vLLM, so that the newest says
what is so now. A request whose first token is not here yet counts as one that waits.
"""

import time
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from serve.engine_client import EngineClient

_LABELS = ("max_lora", "running_lora_adapters", "waiting_lora_adapters")


class AdapterMetrics:
    """A collector; `max_loras` is how many adapters a step can have."""

    def __init__(self, client: EngineClient, max_loras: int) -> None:
        self._client, self._max_loras = client, max_loras

    def collect(self) -> Iterator[Metric]:
        running, waiting = self._client.flights.adapters_at_work()
        name = "vllm:lora_requests_info"
        gauge = GaugeMetricFamily(name, "adapters of requests at work", labels=_LABELS)
        labels = (str(self._max_loras), ",".join(sorted(running)), ",".join(sorted(waiting)))
        gauge.add_metric(labels, time.time())
        yield gauge
