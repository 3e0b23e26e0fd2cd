"""`ingot bench throughput` and `latency`: the engine in this process, without a server."""

import statistics
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from engine.sampling.params import SamplingParams
from serve.bench.results import PERCENTILES, percentile
from serve.bench.samples import Sample

if TYPE_CHECKING:
    from engine import LLM


def measure_throughput(llm: "LLM", samples: Sequence[Sample], *, n: int = 1) -> dict[str, Any]:
    """All samples at once, as fast as they go."""
    prompts = [sample.token_ids for sample in samples]
    params = [_params(sample.output_len, n) for sample in samples]
    start = perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    elapsed = perf_counter() - start
    written = sum(len(one.token_ids) for output in outputs for one in output.outputs)
    tokens = written + sum(map(len, prompts))
    return {
        "elapsed_time": elapsed,
        "num_requests": len(samples),
        "total_num_tokens": tokens,
        "requests_per_second": len(samples) / elapsed,
        "tokens_per_second": tokens / elapsed,
        "output_tokens_per_second": written / elapsed,
    }


def measure_latency(
    llm: "LLM",
    prompts: list[list[int]],
    *,
    output_len: int,
    n: int = 1,
    warmups: int = 10,
    iterations: int = 30,
) -> dict[str, Any]:
    """The same batch again and again; seconds from prompts to whole answers."""
    params = _params(output_len, n)

    def once() -> float:
        start = perf_counter()
        llm.generate(prompts, params, use_tqdm=False)
        return perf_counter() - start

    for _ in range(warmups):
        once()
    latencies = [once() for _ in range(iterations)]
    return {
        "avg_latency": statistics.fmean(latencies),
        "latencies": latencies,
        "percentiles": {str(p): percentile(latencies, p) for p in PERCENTILES},
    }


def _params(output_len: int, n: int) -> SamplingParams:
    return SamplingParams(n=n, temperature=1.0, max_tokens=output_len, ignore_eos=True)
