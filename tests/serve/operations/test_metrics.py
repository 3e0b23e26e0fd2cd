"""/metrics, /health and /version."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from engine.config import EngineConfig
from engine.messages import EngineStats, PageEviction, StepReport
from engine.output_processor import OutputProcessor
from serve.app import build_app
from serve.engine_client import EngineClient
from serve.generation.grammars import GrammarCompiler
from serve.model import load_served_model
from serve.operations.metrics import Metrics
from serve.service import Service
from serve.settings import ServerSettings
from tests.fake_engine import FakeCore
from tests.serve.served import PATIENCE, Serve, until

pytestmark = pytest.mark.anyio


def samples(text: str) -> dict[str, float]:
    """Sample name, with its bucket or reason, to value."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k not in ("model_name", "engine")}
            found[sample.name + (str(labels) if labels else "")] = sample.value
    return found


def report(**stats: Any) -> StepReport:
    return StepReport(deltas=[], stats=EngineStats(**stats))


async def test_requests_are_counted_and_timed(serve: Serve) -> None:
    async with serve() as served:
        await served.complete(prompt="abc", max_tokens=4, n=2)
        await served.complete(prompt="abc", stop="c", max_tokens=50)
        text = (await served.http.get("/metrics")).text
    values = samples(text)
    assert values["vllm:request_success_total{'finished_reason': 'length'}"] == 2
    assert values["vllm:request_success_total{'finished_reason': 'stop'}"] == 1
    assert values["vllm:time_to_first_token_seconds_count"] == 3
    assert values["vllm:inter_token_latency_seconds_count"] == 3 + 3 + 2
    assert values["vllm:e2e_request_latency_seconds_count"] == 3
    assert values["vllm:request_time_per_output_token_seconds_count"] == 3
    assert values["vllm:request_prompt_tokens_sum"] == 9
    assert values["vllm:request_generation_tokens_sum"] == 4 + 4 + 3
    assert values["vllm:request_params_n_sum"] == 3
    assert values["vllm:prompt_tokens_total"] == 9
    assert values["vllm:num_requests_running"] == 0
    assert values["vllm:kv_cache_usage_perc"] == 0
    assert values["ingot:step_time_seconds_count"] >= 7
    assert values["ingot:step_time_seconds_sum"] == pytest.approx(
        0.001 * values["ingot:step_time_seconds_count"]
    )
    assert values["ingot:padding_tokens_total"] == 3 * values["ingot:steps_total"]
    assert values["ingot:compiles_after_warmup_total"] == 0
    config = "vllm:cache_config_info{'block_size': '16', 'num_gpu_blocks': '64'}"
    assert values[config] == 1
    for name in ("process_resident_memory_bytes", "python_info", "python_gc_collections_total"):
        assert any(each.startswith(name) for each in values), name


async def test_what_the_engine_says_of_a_request_is_counted_once_it_ends(serve: Serve) -> None:
    async with serve() as served:
        served.core.said_first = {
            "queue_seconds": 0.0, "num_cached_tokens": 5, "num_external_tokens": 2,
            "num_preemptions": 3,
        }  # fmt: skip
        await served.complete(prompt="abcdefg", max_tokens=4, n=2)
        values = samples((await served.http.get("/metrics")).text)
    for source, tokens in {
        "local_compute": 4, "local_cache_hit": 6, "external_kv_transfer": 4
    }.items():  # fmt: skip
        assert values[f"vllm:prompt_tokens_by_source_total{{'source': '{source}'}}"] == tokens
    assert values["vllm:prompt_tokens_cached_total"] == 10
    assert values["vllm:request_num_preemptions_sum"] == 6
    assert values["vllm:request_prefill_kv_computed_tokens_sum"] == 4
    assert values["vllm:request_max_num_generation_tokens_sum"] == 4
    for phase in ("prefill", "inference", "decode"):
        assert values[f"vllm:request_{phase}_time_seconds_count"] == 2
    times = [
        values[f"vllm:request_{each}_time_seconds_sum"] for each in ("prefill", "decode")
    ]  # fmt: skip
    assert values["vllm:request_inference_time_seconds_sum"] == pytest.approx(sum(times))


async def test_paths_methods_and_statuses_are_bounded(serve: Serve) -> None:
    async with serve() as served:
        await served.complete(prompt="a", max_tokens=1)
        await served.complete(prompt="a", temperature=-1)
        await served.http.get("/v1/models/tiny")
        await served.http.get("/nowhere/at/all")
        await served.http.get("/metrics")
        await served.http.request("BREW", "/v1/completions")
        values = samples((await served.http.get("/metrics")).text)
    for handler, method, status in (
        ("/v1/completions", "POST", "2xx"), ("/v1/completions", "POST", "4xx"),
        ("/v1/models/{name:path}", "GET", "2xx"), ("none", "GET", "4xx"),
        ("/v1/completions", "other", "4xx"),
    ):  # fmt: skip
        labels = {"handler": handler, "method": method, "status": status}
        assert values[f"http_requests_total{labels}"] == 1
    assert not [name for name in values if "http_" in name and "/metrics" in name]
    ended = {"handler": "/v1/completions", "method": "POST"}
    assert values[f"http_request_duration_seconds_count{ended}"] == 2


async def test_bodies_are_measured(serve: Serve) -> None:
    async with serve() as served:
        answer = await served.complete(prompt="a", max_tokens=1)
        await served.complete(prompt="a", max_tokens=1, stream=True)
        false = {"content-type": "application/json", "content-length": "9" * 30}
        await served.http.post("/tokenize", content=b"{}", headers=false)
        values = samples((await served.http.get("/metrics")).text)
    of_each = "{'handler': '/v1/completions'}"
    assert values[f"http_request_size_bytes_count{of_each}"] == 2
    assert values[f"http_request_size_bytes_sum{of_each}"] > len(answer.request.content)
    assert values[f"http_response_size_bytes_sum{of_each}"] == len(answer.content)
    assert values["http_request_size_bytes_sum{'handler': '/tokenize'}"] == 2**30  # as it claimed


async def test_replies_that_might_hold_calls_are_counted(serve: Serve) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    async with serve(ServerSettings(tool_call_parser="hermes")) as served:
        plain = await served.chat("Hi", max_tokens=3)
        offered = await served.chat("Hi", max_tokens=3, tools=tools, stream=True)
        values = samples((await served.http.get("/metrics")).text)
    assert plain.status_code == offered.status_code == 200
    parsed = {key: value for key, value in values.items() if "invocations_total" in key}
    labels = {
        "mode": "streaming", "outcome": "no_tool_call", "request_type": "chat_completions",
    }  # fmt: skip
    assert parsed == {f"vllm:tool_call_parser_invocations_total{labels}": 1}


def test_the_engines_own_numbers_have_vllm_s_names() -> None:
    metrics = Metrics("m")
    told = report(num_waiting=3, num_deferred=2)
    told.evictions = [PageEviction(20.0, 5.0, [1.0, 2.0])]
    metrics.engine_report(told)
    metrics.engine_started(os.getpid())
    labels = {"model_name": "m", "engine": "0"}
    get = metrics.registry.get_sample_value
    assert get("vllm:num_requests_waiting", labels) == 5
    reasons = {"capacity": 3, "deferred": 2}
    for reason, count in reasons.items():
        name = "vllm:num_requests_waiting_by_reason"
        assert get(name, {**labels, "reason": reason}) == count
    for name, total in {"lifetime": 20, "idle_before_evict": 5, "reuse_gap": 3}.items():
        assert get(f"vllm:kv_block_{name}_seconds_sum", labels) == total
    assert get("ingot:engine_process_cpu_seconds_total", {}) == pytest.approx(
        get("process_cpu_seconds_total", {}), abs=1.0
    )


async def test_whoever_asks_while_a_driver_is_silent_waits_in_one_thread(serve: Serve) -> None:
    """Each would take one of those that tokenise, until no request is answered any more."""
    asked, driver = 0, threading.Event()

    class Silent:
        def collect(self) -> Iterator[Metric]:
            nonlocal asked
            asked += 1
            driver.wait(PATIENCE)
            return iter(())

    async with serve() as served:
        served.engine._metrics.registry.register(Silent())
        scrapes = [asyncio.create_task(served.http.get("/metrics")) for _ in range(40)]
        await until(lambda: asked)
        scrapes.pop().cancel()
        chat = served.chat("Hello", max_tokens=2)
        assert (await asyncio.wait_for(chat, PATIENCE / 2)).status_code == 200
        driver.set()
        texts = {answer.text for answer in await asyncio.gather(*scrapes)}
        assert asked == 1 and len(texts) == 1
        assert (await served.http.get("/metrics")).text not in texts and asked == 2


def test_the_cache_gauge_is_a_share() -> None:
    metrics = Metrics("m")
    metrics.engine_report(report(num_pages=8, num_free_pages=2))
    labels = {"model_name": "m", "engine": "0"}
    assert metrics.registry.get_sample_value("vllm:kv_cache_usage_perc", labels) == 0.75


def test_the_host_s_pages_are_counted_under_vllm_s_names() -> None:
    metrics = Metrics("m")
    metrics.engine_report(
        report(
            num_host_pages=8, num_used_host_pages=2, external_prefix_cache_queries=50,
            external_prefix_cache_hits=30, kv_offload_store_bytes=7, kv_offload_load_bytes=5,
        )
    )  # fmt: skip
    labels = {"model_name": "m", "engine": "0"}
    for name, value in {
        "kv_offload_cpu_cache_usage_perc": 0.25,
        "external_prefix_cache_queries_total": 50,
        "external_prefix_cache_hits_total": 30,
        "kv_offload_store_bytes_total": 7,
        "kv_offload_load_bytes_total": 5,
    }.items():
        assert metrics.registry.get_sample_value(f"vllm:{name}", labels) == value


def test_a_new_engine_has_nothing_of_the_one_before() -> None:
    metrics = Metrics("m")
    metrics.engine_report(report(num_running=3, num_pages=8, num_free_pages=2))
    metrics.model_ready(FakeCore(EngineConfig()).info)
    labels = {"model_name": "m", "engine": "0"}
    for name in ("num_requests_running", "kv_cache_usage_perc"):
        assert metrics.registry.get_sample_value(f"vllm:{name}", labels) == 0


async def test_health_follows_the_engine(serve: Serve) -> None:
    async with serve() as served:
        ready = await served.http.get("/health")
        served.engine.drain()
        leaving = await served.http.get("/health")
        refused = await served.complete(prompt="a")
        version = (await served.http.get("/version")).json()
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    assert (leaving.status_code, leaving.json()) == (503, {"status": "draining"})
    assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
    assert set(version) == {"version"}


async def test_a_loading_server_says_so(model_folder: Path) -> None:
    settings, metrics = ServerSettings(), Metrics("tiny")
    model = load_served_model(model_folder, "tiny", settings)
    client = EngineClient(OutputProcessor(model.tokenizer), metrics)
    grammars = GrammarCompiler(model_folder)
    app = build_app(Service(settings, EngineConfig(), model, client, metrics, grammars))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://test"
    ) as http:
        health = await http.get("/health")
        refused = await http.post("/v1/completions", json={"prompt": "a"})
        listed = await http.get("/v1/models")
    assert (health.status_code, health.json()) == (503, {"status": "loading"})
    assert refused.status_code == listed.status_code == 503
