"""Prometheus metrics: vLLM's names for what both measure, `ingot:` for what only Ingot does.

Times are measured here, in the front, as clients see them. What the engine counts is read from
its latest report when Prometheus asks. Label sets are fixed: nothing a client sends is a label.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from starlette.requests import Request
from starlette.responses import Response

from engine.messages import EngineStats, FinishReason, ModelInfo
from engine.sampling_params import SamplingParams
from serve.gpus import Gpus
from serve.histogram import Histogram

_LABELS = ("model_name", "engine")
# fmt: off
_FIRST_TOKEN = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40,
    80, 160, 640, 2560,
)
_BETWEEN_TOKENS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5,
    5, 7.5, 10, 20, 40, 80,
)
_LATENCY = (
    0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
)
_STEP = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_CHUNK = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
_SAMPLES = (1, 2, 5, 10, 20, 50, 100)
# fmt: on
_TOKENS = tuple(base * 10**power for power in range(7) for base in (1, 2, 5))


@dataclass(slots=True)
class Timeline:
    """When one choice of a request arrived and spoke, in seconds of `time.monotonic`."""

    prompt_tokens: int
    arrival: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    last_token: float = 0.0
    tokens: int = 0
    queue_seconds: float | None = None


@dataclass(slots=True)
class Totals:
    """Sums since the start, from which means over any time can be made."""

    first_tokens: int = 0
    first_token_seconds: float = 0.0
    gaps: int = 0
    gap_seconds: float = 0.0


class Metrics:
    """All metrics of one server."""

    def __init__(self, model_name: str, gpus: Gpus | None = None) -> None:
        self.registry = CollectorRegistry()
        self.totals = Totals()
        self._values = (model_name, "0")
        self._engine = _EngineCollector(self._values)
        self.registry.register(self._engine)
        ProcessCollector(registry=self.registry)
        if gpus is not None:
            self.registry.register(gpus)
        self._queue = self._histogram("vllm:request_queue_time_seconds", _LATENCY)
        self._time_to_first = self._histogram("vllm:time_to_first_token_seconds", _FIRST_TOKEN)
        self._between = self._histogram("vllm:inter_token_latency_seconds", _BETWEEN_TOKENS)
        self._per_token = self._histogram(
            "vllm:request_time_per_output_token_seconds", _BETWEEN_TOKENS
        )
        self._end_to_end = self._histogram("vllm:e2e_request_latency_seconds", _LATENCY)
        self._decode = self._histogram("vllm:request_decode_time_seconds", _LATENCY)
        self._prompt = self._histogram("vllm:request_prompt_tokens", _TOKENS)
        self._generation = self._histogram("vllm:request_generation_tokens", _TOKENS)
        self._iteration = self._histogram("vllm:iteration_tokens_total", _TOKENS)
        self._samples = self._histogram("vllm:request_params_n", _SAMPLES)
        self._max_tokens = self._histogram("vllm:request_params_max_tokens", _TOKENS)
        self._step = self._histogram("ingot:step_time_seconds", _STEP)
        self._shown = self._histogram("ingot:chunk_delay_seconds", _CHUNK)
        self._success = self._counter("vllm:request_success", "finished_reason")
        self._rejections = self._counter("vllm:admission_rejections", "reason")

    def started(self, params: SamplingParams) -> None:
        """A prompt was handed to the engine."""
        self._samples.observe(params.n)
        if params.max_tokens is not None:
            self._max_tokens.observe(params.max_tokens)

    def rejected(self, reason: str) -> None:
        """A request was turned away before the engine saw it."""
        self._rejections.labels(*self._values, reason).inc()

    def shown(self, seconds: float) -> None:
        """A chunk of a stream went to its client so long after the engine had sent its tokens."""
        self._shown.observe(seconds)

    def queued(self, seconds: float) -> None:
        """A choice got its first row after so long."""
        self._queue.observe(seconds)

    def tokens(self, timeline: Timeline, count: int) -> None:
        """A choice got `count` more tokens."""
        if not count:
            return
        now = time.monotonic()
        if timeline.first_token is None:
            timeline.first_token = now
            self._time_to_first.observe(now - timeline.arrival)
            self.totals.first_tokens += 1
            self.totals.first_token_seconds += now - timeline.arrival
        else:
            self._between.observe(now - timeline.last_token)
            self.totals.gaps += 1
            self.totals.gap_seconds += now - timeline.last_token
        timeline.last_token = now
        timeline.tokens += count

    def finished(self, timeline: Timeline, reason: FinishReason) -> None:
        """A choice came to its end."""
        self._success.labels(*self._values, reason).inc()
        self._end_to_end.observe(time.monotonic() - timeline.arrival)
        self._prompt.observe(timeline.prompt_tokens)
        self._generation.observe(timeline.tokens)
        if timeline.first_token is not None:
            decode = timeline.last_token - timeline.first_token
            self._decode.observe(decode)
            if timeline.tokens > 1:
                self._per_token.observe(decode / (timeline.tokens - 1))

    def model_ready(self, info: ModelInfo) -> None:
        """An engine has its pages, and has done nothing yet."""
        self._engine.info, self._engine.stats = info, EngineStats()

    def engine_report(self, stats: EngineStats) -> None:
        """The engine made a step."""
        before, self._engine.stats = self._engine.stats, stats
        steps = stats.num_steps - before.num_steps
        if steps > 0:
            self._step.observe((stats.step_seconds - before.step_seconds) / steps)
            self._iteration.observe(stats.scheduled_tokens - before.scheduled_tokens)

    async def route(self, _: Request) -> Response:
        """GET /metrics."""
        text = await asyncio.to_thread(generate_latest, self.registry)  # drivers may be slow
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    def _histogram(self, name: str, bounds: Sequence[float]) -> Histogram:
        histogram = Histogram(name, dict(zip(_LABELS, self._values, strict=True)), bounds)
        self.registry.register(histogram)
        return histogram

    def _counter(self, name: str, label: str) -> Counter:
        text = name.partition(":")[2].replace("_", " ")
        return Counter(name, text, (*_LABELS, label), registry=self.registry)


class _EngineCollector:
    """The engine's own numbers, as of its latest report."""

    def __init__(self, values: Sequence[str]) -> None:
        self._values = values
        self.stats = EngineStats()
        self.info: ModelInfo | None = None

    def collect(self) -> Iterator[Metric]:
        for name, value in self._gauges().items():
            gauge = GaugeMetricFamily(name, name.partition(":")[2], labels=_LABELS)
            gauge.add_metric(self._values, value)
            yield gauge
        for name, value in self._counters().items():
            counter = CounterMetricFamily(name, name.partition(":")[2], labels=_LABELS)
            counter.add_metric(self._values, value)
            yield counter
        if self.info is not None:
            yield self._cache_config(self.info)

    def _gauges(self) -> dict[str, float]:
        stats = self.stats
        used = stats.num_pages - stats.num_free_pages
        return {
            "vllm:num_requests_running": stats.num_running,
            "vllm:num_requests_waiting": stats.num_waiting,
            "vllm:kv_cache_usage_perc": used / stats.num_pages if stats.num_pages else 0.0,
            "vllm:kv_offload_cpu_cache_usage_perc": (
                stats.num_used_host_pages / stats.num_host_pages if stats.num_host_pages else 0.0
            ),
        }

    def _counters(self) -> dict[str, float]:
        stats = self.stats
        return {
            "vllm:num_preemptions": stats.num_preemptions,
            "vllm:prefix_cache_queries": stats.prefix_cache_queries,
            "vllm:prefix_cache_hits": stats.prefix_cache_hits,
            "vllm:external_prefix_cache_queries": stats.external_prefix_cache_queries,
            "vllm:external_prefix_cache_hits": stats.external_prefix_cache_hits,
            "vllm:kv_offload_store_bytes": stats.kv_offload_store_bytes,
            "vllm:kv_offload_load_bytes": stats.kv_offload_load_bytes,
            "vllm:prompt_tokens": stats.prompt_tokens,
            "vllm:generation_tokens": stats.generation_tokens,
            "ingot:steps": stats.num_steps,
            "ingot:scheduled_tokens": stats.scheduled_tokens,
            "ingot:padding_tokens": stats.padded_tokens - stats.scheduled_tokens,
            "ingot:compiles_after_warmup": stats.num_compiles_after_warmup,
            "ingot:host_seconds": stats.host_seconds,
        }

    def _cache_config(self, info: ModelInfo) -> Metric:
        labels = (*_LABELS, "num_gpu_blocks", "block_size")
        gauge = GaugeMetricFamily("vllm:cache_config_info", "pages of the cache", labels=labels)
        gauge.add_metric((*self._values, str(info.num_pages), str(info.page_size)), 1)
        return gauge
