"""The engine's own numbers as Prometheus reads them: of its latest report, and of its pages.

Owns their names; `metrics` says when there is something new.
"""

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from engine.messages import EngineStats, ModelInfo, PageEviction
from engine.metrics import ACCEPTED_PER_PLACE, counters, gauges
from serve.operations.histogram import Histogram

LABELS = ("model_name", "engine")
# fmt: off
_RESIDENCY = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600,
    1200, 1800,
)
# fmt: on


class ResidencyMetrics:
    """How long pages stay in the cache; empty without `--kv-cache-metrics`."""

    def __init__(self, registry: CollectorRegistry, values: Sequence[str]) -> None:
        labels = dict(zip(LABELS, values, strict=True))
        self._lifetime, self._idle, self._gap = (
            Histogram(f"vllm:kv_block_{name}_seconds", labels, _RESIDENCY)
            for name in ("lifetime", "idle_before_evict", "reuse_gap")
        )
        for histogram in (self._lifetime, self._idle, self._gap):
            registry.register(histogram)

    def observe(self, eviction: PageEviction) -> None:
        """A page that was watched has lost its content."""
        self._lifetime.observe(eviction.lifetime)
        self._idle.observe(eviction.idle)
        for gap in eviction.gaps:
            self._gap.observe(gap)


class EngineCollector:
    """The engine's own numbers, as of its latest report."""

    def __init__(self, values: Sequence[str]) -> None:
        self._values = values
        self.stats = EngineStats()
        self.info: ModelInfo | None = None
        self.prompt_sources = dict.fromkeys(
            ("local_compute", "local_cache_hit", "external_kv_transfer"), 0
        )

    def collect(self) -> Iterator[Metric]:
        for name, value in gauges(self.stats).items():
            gauge = GaugeMetricFamily(name, name.partition(":")[2], labels=LABELS)
            gauge.add_metric(self._values, value)
            yield gauge
        found = self.prompt_sources
        cached = found["local_cache_hit"] + found["external_kv_transfer"]
        counted = counters(self.stats) | {"vllm:prompt_tokens_cached": cached}
        for name, value in counted.items():
            counter = CounterMetricFamily(name, name.partition(":")[2], labels=LABELS)
            counter.add_metric(self._values, value)
            yield counter
        yield self._accepted_per_place()
        yield self._waiting()
        yield self._sleep_state()
        yield from self._sources()
        if self.info is not None:
            yield self._cache_config(self.info)

    def _accepted_per_place(self) -> Metric:
        text, labels = ACCEPTED_PER_PLACE.partition(":")[2], (*LABELS, "position")
        counter = CounterMetricFamily(ACCEPTED_PER_PLACE, text, labels=labels)
        for place, count in enumerate(self.stats.accepted_per_place):
            counter.add_metric((*self._values, str(place)), count)
        return counter

    def _waiting(self) -> Metric:
        """For room in a step, or for a grammar that is being compiled."""
        name = "vllm:num_requests_waiting_by_reason"
        gauge = GaugeMetricFamily(name, "why requests wait", labels=(*LABELS, "reason"))
        gauge.add_metric((*self._values, "capacity"), self.stats.num_waiting)
        gauge.add_metric((*self._values, "deferred"), self.stats.num_deferred)
        return gauge

    def _sleep_state(self) -> Metric:
        """One state is 1; none is while only the cache is gone."""
        stats = self.stats
        states = {
            "awake": stats.weights == stats.kv_cache == "resident",
            "weights_offloaded": stats.weights == "offloaded",
            "discard_all": stats.weights == "discarded",
        }
        name = "vllm:engine_sleep_state"
        gauge = GaugeMetricFamily(name, "where the weights are", labels=(*LABELS, "sleep_state"))
        for state, value in states.items():
            gauge.add_metric((*self._values, state), value)
        return gauge

    def _sources(self) -> Iterator[Metric]:
        """Where prompts came from, and where what was cached of them lay."""
        found, labels = self.prompt_sources, (*LABELS, "source")
        cached = {"device": found["local_cache_hit"], "host": found["external_kv_transfer"]}
        for name, sources in (("by_source", found), ("cached_by_source", cached)):
            name = f"vllm:prompt_tokens_{name}"
            counter = CounterMetricFamily(name, name.partition(":")[2], labels=labels)
            for source, tokens in sources.items():
                counter.add_metric((*self._values, source), tokens)
            yield counter

    def _cache_config(self, info: ModelInfo) -> Metric:
        labels = (*LABELS, "num_gpu_blocks", "block_size")
        gauge = GaugeMetricFamily("vllm:cache_config_info", "pages of the cache", labels=labels)
        gauge.add_metric((*self._values, str(info.num_pages), str(info.page_size)), 1)
        return gauge
