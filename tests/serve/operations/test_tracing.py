"""Spans as a collector gets them, over HTTP, and what the flag says where there can be none."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.sampling.params import SamplingParams
from serve.engine_client import Prompt
from serve.operations.tracing import Traces, make_traces
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector:
    """What was posted to it, decoded."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
                    ExportTraceServiceRequest,
                )

                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") is None and self.path == "/v1/traces":
                    collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, request: Any) -> None:
        for resource in request.resource_spans:
            self.services |= {a.value.string_value for a in resource.resource.attributes
                              if a.key == "service.name"}  # fmt: skip
            for scope in resource.scope_spans:
                self.spans += scope.spans


@contextmanager
def collected() -> Iterator[tuple[Collector, Traces]]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs ingot[otel]")
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever)
    thread.start()
    try:
        yield collector, make_traces(collector.url, "tiny")
    finally:
        collector.server.shutdown()
        thread.join()
        collector.server.server_close()


def attributes(span: Any) -> dict[str, Any]:
    found = {}
    for each in span.attributes:
        value = each.value
        kind = value.WhichOneof("value")
        got = getattr(value, kind)
        found[each.key] = [v.string_value for v in got.values] if kind == "array_value" else got
    return found


async def test_a_request_is_a_span_of_the_trace_that_it_came_from(serve: Serve) -> None:
    with collected() as (collector, traces):
        async with serve(traces=traces) as served:
            body = {
                "messages": [{"role": "user", "content": "a secret"}], "max_tokens": 5, "n": 2,
                "temperature": 0.5,
            }  # fmt: skip
            answer = await served.http.post(
                "/v1/chat/completions", json=body, headers={"traceparent": PARENT}
            )
            other = await served.complete(prompt="ab", max_tokens=3, stream=True)
            refused = await served.complete(prompt="ab", temperature=-1)
        assert answer.is_success and other.is_success and refused.status_code == 400
        traces.close()
    chat, completion = sorted(collector.spans, key=lambda span: -len(span.parent_span_id))
    assert collector.services == {"ingot"}
    assert chat.trace_id.hex() == PARENT.split("-")[1]
    assert chat.parent_span_id.hex() == PARENT.split("-")[2]
    assert not completion.parent_span_id and completion.trace_id != chat.trace_id
    assert (chat.name, chat.kind) == ("llm_request", 2)  # a server's
    said = attributes(chat)
    assert said["gen_ai.request.id"].startswith(answer.json()["id"])
    expected = {
        "gen_ai.response.model": "tiny",
        "gen_ai.request.n": 2,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.max_tokens": 5,
        "gen_ai.usage.num_sequences": 2,
        "gen_ai.usage.prompt_tokens": answer.json()["usage"]["prompt_tokens"],
        "gen_ai.usage.completion_tokens": 10,
        "gen_ai.response.finish_reasons": ["length", "length"],
    }
    assert {name: said[name] for name in expected} == expected
    latency = {n.rpartition(".")[2]: v for n, v in said.items() if ".latency." in n}
    assert 0 < latency["time_to_first_token"] <= latency["e2e"] < 60
    assert latency["time_in_model_decode"] <= latency["time_in_model_inference"]
    assert chat.end_time_unix_nano > chat.start_time_unix_nano
    assert "secret" not in str(collector.spans)


async def test_what_is_aborted_ends_its_span(serve: Serve) -> None:
    with collected() as (collector, traces):
        async with serve(traces=traces) as served:
            served.core.step_seconds = 0.01
            prompt = Prompt("ab", [1, 2], SamplingParams(max_tokens=100))
            with served.engine.generate("a", [prompt]) as stream:
                deltas = aiter(stream)
                await anext(deltas)
                await deltas.aclose()
        traces.close()
    [span] = collector.spans
    assert attributes(span)["gen_ai.response.finish_reasons"] == ["abort"]


def test_a_collector_that_does_not_answer_holds_nobody_up() -> None:
    class Provider:
        ended = threading.Event()

        def get_tracer(self, _: str) -> None:
            """No span is begun here."""

        def shutdown(self) -> None:
            self.ended.wait(60)

    provider, began = Provider(), time.monotonic()
    Traces(provider, "tiny").close()
    provider.ended.set()
    assert time.monotonic() - began < 30


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = ("localhost:4317", "grpc://localhost:4317", "http://", "/v1/traces", "")
    for url in (*wrong, "http://[::1", "http://a:port"):
        with pytest.raises(ConfigError, match="OTLP over HTTP"):
            make_traces(url, "tiny")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"pip install 'ingot\[otel\]'"):
        make_traces("http://localhost:4318", "tiny")
