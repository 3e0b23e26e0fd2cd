"""The engine's numbers by the names of vLLM's metrics: for scripts, and for who exports them.

Owns the names of what `EngineStats` holds. What only a server knows (latencies, HTTP) is its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from engine.messages import EngineStats

# how many drafts were right in their first token, in their second, and so on
ACCEPTED_PER_PLACE = "vllm:spec_decode_num_accepted_tokens_per_pos"


@dataclass(frozen=True)
class Metric:
    """Labels are those that a server's `/metrics` would have."""

    name: str
    labels: dict[str, str]


@dataclass(frozen=True)
class Gauge(Metric):
    """What goes up and down."""

    value: float


@dataclass(frozen=True)
class Counter(Metric):
    """What grows from the start of the engine on."""

    value: float


@dataclass(frozen=True)
class Vector(Metric):
    """Counters that have an order."""

    values: list[int]


def metrics_of(stats: EngineStats, labels: dict[str, str]) -> Iterator[Metric]:
    """All of them, in vLLM's forms."""
    for name, value in gauges(stats).items():
        yield Gauge(name, labels, value)
    for name, value in counters(stats).items():
        yield Counter(name, labels, value)
    yield Vector(ACCEPTED_PER_PLACE, labels, list(stats.accepted_per_place))


def gauges(stats: EngineStats) -> dict[str, float]:
    """What is so now."""
    used = stats.num_pages - stats.num_free_pages
    return {
        "vllm:num_requests_running": stats.num_running,
        "vllm:num_requests_waiting": stats.num_waiting + stats.num_deferred,
        "vllm:kv_cache_usage_perc": used / stats.num_pages if stats.num_pages else 0.0,
        "vllm:kv_offload_cpu_cache_usage_perc": (
            stats.num_used_host_pages / stats.num_host_pages if stats.num_host_pages else 0.0
        ),
    }


def counters(stats: EngineStats) -> dict[str, float]:
    """What was so far; Prometheus adds `_total`."""
    return {
        "vllm:num_preemptions": stats.num_preemptions,
        "vllm:corrupted_requests": stats.num_corrupted,
        "vllm:prefix_cache_queries": stats.prefix_cache_queries,
        "vllm:prefix_cache_hits": stats.prefix_cache_hits,
        "vllm:external_prefix_cache_queries": stats.external_prefix_cache_queries,
        "vllm:external_prefix_cache_hits": stats.external_prefix_cache_hits,
        "vllm:kv_offload_store_bytes": stats.kv_offload_store_bytes,
        "vllm:kv_offload_load_bytes": stats.kv_offload_load_bytes,
        "vllm:spec_decode_num_drafts": stats.num_drafts,
        "vllm:spec_decode_num_draft_tokens": stats.num_draft_tokens,
        "vllm:spec_decode_num_accepted_tokens": sum(stats.accepted_per_place),
        "vllm:prompt_tokens": stats.prompt_tokens,
        "vllm:generation_tokens": stats.generation_tokens,
        "ingot:steps": stats.num_steps,
        "ingot:scheduled_tokens": stats.scheduled_tokens,
        "ingot:padding_tokens": stats.padded_tokens - stats.scheduled_tokens,
        "ingot:compiles_after_warmup": stats.num_compiles_after_warmup,
        "ingot:host_seconds": stats.host_seconds,
    }
