"""Prometheus metrics: vLLM's names for what both measure, `ingot:` for what only Ingot does.

Times are measured here, in the front, as clients see them. What the engine counts is read from
its latest report when Prometheus asks (`engine_metrics`). Label sets are fixed: nothing a client
sends is a label.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from starlette.requests import Request
from starlette.responses import Response

from engine.messages import FIRST_WEIGHTS, EngineStats, FinishReason, ModelInfo, StepReport
from engine.sampling.params import SamplingParams
from engine.watermarking.requests import Status, status_of
from serve.operations.engine_metrics import LABELS, EngineCollector, ResidencyMetrics
from serve.operations.gpus import Gpus
from serve.operations.histogram import Histogram
from serve.operations.http_metrics import HttpMetrics
from serve.operations.sleep_metrics import SleepMetrics
from serve.operations.websocket_metrics import WebsocketMetrics

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
_PREEMPTIONS = (0, 1, 2, 5, 10, 20, 50)
# fmt: on
_TOKENS = tuple(base * 10**power for power in range(7) for base in (1, 2, 5))
RequestType = Literal["chat_completions", "responses", "other"]


@dataclass(slots=True)
class Timeline:
    """When one choice of a request arrived and spoke, in seconds of `time.monotonic`."""

    prompt_tokens: int
    arrival: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    last_token: float = 0.0
    tokens: int = 0
    queue_seconds: float | None = None
    cached_tokens: int = 0
    preemptions: int = 0
    weights: str = FIRST_WEIGHTS  # by which the last tokens were written
    earlier_weights: tuple[tuple[int, str], ...] = ()  # up to which token which others did
    watermark: Status | None = None  # of engines that have one


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
        self._engine = EngineCollector(self._values)
        self.registry.register(self._engine)
        self._residency = ResidencyMetrics(self.registry, self._values)
        self.http = HttpMetrics(self.registry)
        self.websockets = WebsocketMetrics(self.registry)
        self.sleep = SleepMetrics(self.registry)
        self._engine_pid = 0
        self._writing: asyncio.Task[bytes] | None = None  # what all who ask meanwhile are given
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        ProcessCollector(registry=self.registry)
        ProcessCollector("ingot:engine", lambda: self._engine_pid, registry=self.registry)
        if gpus is not None:
            self.registry.register(gpus)
        self._queue = self._histogram("vllm:request_queue_time_seconds", _LATENCY)
        self._time_to_first = self._histogram("vllm:time_to_first_token_seconds", _FIRST_TOKEN)
        self._between = self._histogram("vllm:inter_token_latency_seconds", _BETWEEN_TOKENS)
        self._per_token = self._histogram(
            "vllm:request_time_per_output_token_seconds", _BETWEEN_TOKENS
        )
        self._end_to_end = self._histogram("vllm:e2e_request_latency_seconds", _LATENCY)
        self._prefill = self._histogram("vllm:request_prefill_time_seconds", _LATENCY)
        self._decode = self._histogram("vllm:request_decode_time_seconds", _LATENCY)
        self._inference = self._histogram("vllm:request_inference_time_seconds", _LATENCY)
        self._prompt = self._histogram("vllm:request_prompt_tokens", _TOKENS)
        self._generation = self._histogram("vllm:request_generation_tokens", _TOKENS)
        self._longest = self._histogram("vllm:request_max_num_generation_tokens", _TOKENS)
        self._computed = self._histogram("vllm:request_prefill_kv_computed_tokens", _TOKENS)
        self._preemptions = self._histogram("vllm:request_num_preemptions", _PREEMPTIONS)
        self._iteration = self._histogram("vllm:iteration_tokens_total", _TOKENS)
        self._samples = self._histogram("vllm:request_params_n", _SAMPLES)
        self._max_tokens = self._histogram("vllm:request_params_max_tokens", _TOKENS)
        self._step = self._histogram("ingot:step_time_seconds", _STEP)
        self._shown = self._histogram("ingot:chunk_delay_seconds", _CHUNK)
        success = self._counter("vllm:request_success", "finished_reason")
        self._ended = cache(lambda reason: success.labels(*self._values, reason))
        self._watermarks = self._counter("vllm:watermark_requests", "status")
        self._rejections = self._counter("vllm:admission_rejections", "reason")
        self._fallbacks = self._counter("ingot:fallbacks", "url", "outcome")
        self._parsed = self._counter(
            "vllm:tool_call_parser_invocations", "mode", "outcome", "request_type"
        )

    def started(self, params: SamplingParams) -> None:
        """A prompt was handed to the engine."""
        self._samples.observe(params.n)
        if params.max_tokens is not None:
            self._max_tokens.observe(params.max_tokens)

    def watermark_of(self, params: SamplingParams, *, beams: bool) -> Status | None:
        """Whether a prompt's answers have the engine's watermark; None where it has none."""
        info = self._engine.info
        return status_of(params, beams=beams) if info and info.watermarks else None

    def rejected(self, reason: str) -> None:
        """A request was turned away before the engine saw it."""
        self._rejections.labels(*self._values, reason).inc()

    def fell_back(self, url: str, outcome: str) -> None:
        """An API was asked in this server's place: "answered", or why it did not."""
        self._fallbacks.labels(*self._values, url, outcome).inc()

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

    def prompt_known(self, timeline: Timeline, external_tokens: int = 0) -> None:
        """The first token of a choice is here, and with it what of its prompt was cached."""
        sources = self._engine.prompt_sources
        sources["local_compute"] += timeline.prompt_tokens - timeline.cached_tokens
        sources["local_cache_hit"] += timeline.cached_tokens - external_tokens
        sources["external_kv_transfer"] += external_tokens

    def finished(self, timeline: Timeline, reason: FinishReason) -> None:
        """A choice came to its end."""
        self._ended(reason).inc()
        if timeline.watermark is not None:
            self._watermarks.labels(*self._values, timeline.watermark).inc()
        self._end_to_end.observe(time.monotonic() - timeline.arrival)
        self._prompt.observe(timeline.prompt_tokens)
        self._generation.observe(timeline.tokens)
        self._preemptions.observe(timeline.preemptions)
        if timeline.first_token is None:
            return
        self._computed.observe(timeline.prompt_tokens - timeline.cached_tokens)
        decode = timeline.last_token - timeline.first_token
        self._decode.observe(decode)
        if timeline.tokens > 1:
            self._per_token.observe(decode / (timeline.tokens - 1))
        if timeline.queue_seconds is not None:
            prefill = timeline.first_token - timeline.arrival - timeline.queue_seconds
            self._prefill.observe(max(0.0, prefill))  # two processes measured
            self._inference.observe(max(0.0, prefill) + decode)

    def all_finished(self, longest: int) -> None:
        """All choices of a prompt have ended; the longest has so many tokens."""
        self._longest.observe(longest)

    def reply_read(self, request_type: RequestType, streaming: bool, has_calls: bool) -> None:
        """A reply that could have held calls of tools was read to its end."""
        mode = "streaming" if streaming else "non_streaming"
        outcome = "tool_call" if has_calls else "no_tool_call"
        self._parsed.labels(*self._values, mode, outcome, request_type).inc()

    def engine_started(self, pid: int) -> None:
        """An engine process was started, whose CPU time and memory are shown from now on."""
        self._engine_pid = pid

    def model_ready(self, info: ModelInfo) -> None:
        """An engine has its pages, and has done nothing yet."""
        self._engine.info, self._engine.stats = info, EngineStats()

    def engine_report(self, report: StepReport) -> None:
        """The engine made a step."""
        stats = report.stats
        for eviction in report.evictions:
            self._residency.observe(eviction)
        before, self._engine.stats = self._engine.stats, stats
        steps = stats.num_steps - before.num_steps
        if steps > 0:
            self._step.observe((stats.step_seconds - before.step_seconds) / steps)
            self._iteration.observe(stats.scheduled_tokens - before.scheduled_tokens)

    async def route(self, _: Request) -> Response:
        """GET /metrics."""
        if self._writing is None:  # drivers may be slow, or never answer: one thread waits for them
            writing = asyncio.to_thread(generate_latest, self.registry)
            self._writing = asyncio.create_task(writing)
            self._writing.add_done_callback(self._written)
        text = await asyncio.shield(self._writing)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    def _written(self, _: asyncio.Task[bytes]) -> None:
        self._writing = None

    def _histogram(self, name: str, bounds: Sequence[float]) -> Histogram:
        histogram = Histogram(name, dict(zip(LABELS, self._values, strict=True)), bounds)
        self.registry.register(histogram)
        return histogram

    def _counter(self, name: str, *labels: str) -> Counter:
        text = name.partition(":")[2].replace("_", " ")
        return Counter(name, text, (*LABELS, *labels), registry=self.registry)
