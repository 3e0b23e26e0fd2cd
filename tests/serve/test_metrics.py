"""/metrics, /health and /version."""

from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.config import EngineConfig
from engine.messages import EngineStats
from engine.output_processor import OutputProcessor
from serve.app import build_app
from serve.engine_client import EngineClient
from serve.grammars import GrammarCompiler
from serve.metrics import Metrics
from serve.model import load_served_model
from serve.service import Service
from serve.settings import ServerSettings
from tests.fake_engine import FakeCore
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio


def samples(text: str) -> dict[str, float]:
    """Sample name, with its bucket or reason, to value."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k not in ("model_name", "engine")}
            found[sample.name + (str(labels) if labels else "")] = sample.value
    return found


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
    assert "process_resident_memory_bytes" in values


def test_the_cache_gauge_is_a_share() -> None:
    metrics = Metrics("m")
    metrics.engine_report(EngineStats(num_pages=8, num_free_pages=2))
    labels = {"model_name": "m", "engine": "0"}
    assert metrics.registry.get_sample_value("vllm:kv_cache_usage_perc", labels) == 0.75


def test_the_host_s_pages_are_counted_under_vllm_s_names() -> None:
    metrics = Metrics("m")
    metrics.engine_report(
        EngineStats(
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
    metrics.engine_report(EngineStats(num_running=3, num_pages=8, num_free_pages=2))
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
