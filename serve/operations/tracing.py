"""Spans of OpenTelemetry: one `llm_request` a prompt, from its arrival to its last token.

    traceparent ──▶ TraceContext ──▶ route ──▶ EngineClient ──▶ Traces ──▶ OTLP

Names are vLLM's, which are the conventions' where there is one. No texts are told. The packages
(the extra `otel`) are imported only where `--otlp-traces-endpoint` is given, and spans are sent by
a thread of theirs; without the flag nothing here runs. Vectors have no spans.
"""

import os
import time
from collections.abc import Mapping
from importlib import import_module
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.errors import ConfigError
from engine.messages import FinishReason
from engine.sampling.params import SamplingParams
from serve.operations.metrics import Timeline

SERVICE = "ingot"
_FLAG = "--otlp-traces-endpoint"
_PATH = "/v1/traces"  # of a collector
_LAST_SECONDS = 2.0  # that a server which ends gives its collector


class Traces:
    """Where spans begin; `provider` is OpenTelemetry's."""

    def __init__(self, provider: Any, model_name: str) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(SERVICE)
        self._kind = import_module("opentelemetry.trace").SpanKind.SERVER
        self._model_name = model_name

    def begin(self, name: str, prompt_tokens: int, params: SamplingParams) -> "Trace":
        """A span for a prompt that is handed to the engine, within what the request came from."""
        wanted = {
            "gen_ai.response.model": self._model_name,
            "gen_ai.request.id": name,
            "gen_ai.request.n": params.n,
            "gen_ai.request.temperature": params.temperature,
            "gen_ai.request.top_p": params.top_p,
            "gen_ai.request.max_tokens": params.max_tokens,
            "gen_ai.usage.num_sequences": params.n,
            "gen_ai.usage.prompt_tokens": prompt_tokens,
        }
        attributes = {name: value for name, value in wanted.items() if value is not None}
        return Trace(self._tracer.start_span("llm_request", kind=self._kind, attributes=attributes))

    def close(self) -> None:
        """Send what was not sent yet, unless the collector takes too long."""
        sending = Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(_LAST_SECONDS)


class Trace:
    """One span, and what its choices did so far."""

    def __init__(self, span: Any) -> None:
        self._span = span
        self._ended: list[tuple[Timeline, FinishReason]] = []

    def choice_ended(self, timeline: Timeline, reason: FinishReason) -> None:
        """A choice has nothing more to say."""
        self._ended.append((timeline, reason))

    def end(self) -> None:
        """All choices have ended; further calls do nothing."""
        if not self._span.is_recording():
            return
        timelines = [timeline for timeline, _ in self._ended]
        reasons = [reason for _, reason in self._ended]
        self._span.set_attribute("gen_ai.response.finish_reasons", reasons)
        for name, value in _measured(timelines).items():
            self._span.set_attribute(name, value)
        if "error" in reasons:
            self._span.set_status(import_module("opentelemetry.trace").StatusCode.ERROR)
        self._span.end()


def _measured(timelines: list[Timeline]) -> Mapping[str, float]:
    """Seconds, and tokens of all choices."""
    found: dict[str, float] = {
        "gen_ai.usage.completion_tokens": sum(each.tokens for each in timelines)
    }
    queued = [each.queue_seconds for each in timelines if each.queue_seconds is not None]
    firsts = [each.first_token for each in timelines if each.first_token is not None]
    arrival = min((each.arrival for each in timelines), default=time.monotonic())
    found["gen_ai.latency.e2e"] = time.monotonic() - arrival
    if queued:
        found["gen_ai.latency.time_in_queue"] = min(queued)
    if firsts:
        first, last = min(firsts), max(each.last_token for each in timelines)
        waited = min(queued, default=0.0)
        found |= {
            "gen_ai.latency.time_to_first_token": first - arrival,
            "gen_ai.latency.time_in_model_prefill": max(0.0, first - arrival - waited),
            "gen_ai.latency.time_in_model_decode": last - first,
            "gen_ai.latency.time_in_model_inference": max(0.0, last - arrival - waited),
        }
    return found


class TraceContext:
    """ASGI middleware: spans of a request with a `traceparent` header belong to that trace."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._extract = import_module("opentelemetry.propagate").extract
        self._context = import_module("opentelemetry.context")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        token = self._context.attach(self._extract(dict(Headers(scope=scope))))
        try:
            await self._app(scope, receive, send)
        finally:
            self._context.detach(token)


def make_traces(endpoint: str, model_name: str) -> Traces:
    """Spans that go to `endpoint`, by OTLP over HTTP.

    Raises ConfigError where the packages are missing, or for an address that cannot be one.
    """
    try:
        parts = urlsplit(endpoint)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a bracket without its partner, a port that is no number
        fits = False
    if not fits:
        raise ConfigError(
            f"{_FLAG} takes the URL of a collector that speaks OTLP over HTTP, such as "
            f"http://localhost:4318/v1/traces, got {endpoint[:100]!r}."
        )
    try:
        sdk = import_module("opentelemetry.sdk.trace")
        export = import_module("opentelemetry.sdk.trace.export")
        resources = import_module("opentelemetry.sdk.resources")
        otlp = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError as error:
        raise ConfigError(
            f"{_FLAG} needs packages that are not installed ({error}); pip install 'ingot[otel]'."
        ) from None
    if parts.path in ("", "/"):
        endpoint = parts._replace(path=_PATH).geturl()
    named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": SERVICE}
    provider = sdk.TracerProvider(resource=resources.Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter(endpoint)))
    return Traces(provider, model_name)
