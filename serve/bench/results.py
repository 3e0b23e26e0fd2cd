"""From outcomes to numbers: vLLM's result fields by their names, and a table of them.

TTFT: to the first piece. TPOT: the rest of a request by its further tokens. ITL: gaps between
pieces. E2EL: the whole request. Times in a result are milliseconds, in its lists seconds.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.table import Table

from engine.errors import ConfigError
from serve.bench.load import Load
from serve.bench.requests import Outcome

PERCENTILES = (10, 25, 50, 75, 90, 99)  # of what is no load on a server
METRICS = {
    "ttft": "Time to first token",
    "tpot": "Time per output token (without the first)",
    "itl": "Inter-token latency",
    "e2el": "End-to-end latency",
}


def parse_goodput(pairs: Sequence[str]) -> dict[str, float]:
    """["ttft:500", "tpot:50"] in milliseconds; raises ConfigError."""
    found = {}
    for pair in pairs:
        name, _, value = pair.partition(":")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = -1.0
        if name not in ("ttft", "tpot", "e2el") or not found[name] > 0:
            raise ConfigError(
                f"--goodput takes ttft, tpot or e2el with milliseconds, as ttft:500; got {pair!r}."
            )
    return found


def summarise(
    load: Load,
    *,
    percentiles: Sequence[float] = (99,),
    metrics: Sequence[str] = ("ttft", "tpot", "itl"),
    goodput: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """All numbers of one run."""
    good = [outcome for outcome in load.outcomes if outcome.success]
    tokens_in = sum(outcome.prompt_len for outcome in good)
    tokens_out = sum(outcome.output_tokens for outcome in good)
    seconds, cpu = load.duration, load.cpu_seconds
    result: dict[str, Any] = {
        "duration": seconds,
        "completed": len(good),
        "failed": len(load.outcomes) - len(good),
        "total_input_tokens": tokens_in,
        "total_output_tokens": tokens_out,
        "total_cached_tokens": sum(outcome.cached_tokens for outcome in good),
        "request_throughput": len(good) / seconds,
        "request_goodput": _goodput(good, goodput) / seconds if goodput else None,
        "output_throughput": tokens_out / seconds,
        "total_token_throughput": (tokens_in + tokens_out) / seconds,
        "max_output_tokens_per_s": _busiest_second(good),
        "max_concurrent_requests": _most_at_once(good),
        "cpu_seconds_per_1k_output_tokens": (
            None if cpu is None or not tokens_out else 1000 * cpu / tokens_out
        ),
    }
    if heard := sum(outcome.audio_seconds for outcome in good):
        result["rtfx"] = heard / seconds  # seconds of audio in a second
    values = {
        "ttft": [outcome.ttft for outcome in good],
        "tpot": [outcome.tpot for outcome in good if outcome.output_tokens > 1],
        "itl": [gap for outcome in good for gap in outcome.itl],
        "e2el": [outcome.latency for outcome in good],
    }
    for name in metrics:
        result |= _spread(name, values[name], percentiles)
    return result


def details(load: Load) -> dict[str, Any]:
    """What each request did, in the order of sending."""
    outcomes = load.outcomes
    return {
        "input_lens": [outcome.prompt_len for outcome in outcomes],
        "output_lens": [outcome.output_tokens for outcome in outcomes],
        "start_times": [outcome.start for outcome in outcomes],
        "ttfts": [outcome.ttft for outcome in outcomes],
        "itls": [outcome.itl for outcome in outcomes],
        "generated_texts": [outcome.text for outcome in outcomes],
        "errors": [outcome.error for outcome in outcomes],
    }


def now() -> str:
    """A date as vLLM writes it: 20261121-081500."""
    return datetime.now().strftime("%Y%m%d-%H%M%S")


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` percent lie, between neighbours by their distance."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * share / 100
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def table(result: Mapping[str, Any], metrics: Sequence[str]) -> Table:
    """A result for the terminal."""
    seconds = result["duration"]
    made = Table(show_header=False, box=None, pad_edge=False)
    rows = [
        ("Successful requests", result["completed"]),
        ("Failed requests", result["failed"]),
        ("Duration (s)", seconds),
        ("Input tokens", result["total_input_tokens"]),
        ("  found in the prefix cache", result["total_cached_tokens"]),
        ("Output tokens", result["total_output_tokens"]),
        ("Requests / s", result["request_throughput"]),
        ("  within goodput", result["request_goodput"]),
        ("Output tokens / s", result["output_throughput"]),
        ("  in the busiest second", result["max_output_tokens_per_s"] if seconds >= 1 else None),
        ("All tokens / s", result["total_token_throughput"]),
        ("Most requests at once", result["max_concurrent_requests"]),
        ("CPU s / 1000 output tokens", result["cpu_seconds_per_1k_output_tokens"]),
        ("Audio s / s", result.get("rtfx")),
        ("Drafted tokens accepted (%)", result.get("spec_decode_acceptance_rate")),
        ("  tokens of a draft's step", result.get("spec_decode_acceptance_length")),
    ]
    for name in metrics:
        made_of = [key for key in result if key.endswith(f"_{name}_ms")]
        rows.append((f"[bold]{METRICS[name]} (ms)[/]", ""))
        rows += [(f"  {key.removesuffix(f'_{name}_ms')}", result[key]) for key in made_of]
    for label, value in rows:
        if value is not None:
            made.add_row(label, _shown(value))
    return made


def _shown(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def _spread(name: str, values: Sequence[float], percentiles: Sequence[float]) -> dict[str, float]:
    ms = [1000 * value for value in values] or [0.0]
    found = {
        f"mean_{name}_ms": statistics.fmean(ms),
        f"median_{name}_ms": statistics.median(ms),
        f"std_{name}_ms": statistics.pstdev(ms),
    }
    return found | {f"p{share:g}_{name}_ms": percentile(ms, share) for share in percentiles}


def _goodput(good: Sequence[Outcome], limits: Mapping[str, float]) -> int:
    """Requests that kept every limit."""

    def kept(outcome: Outcome) -> bool:
        times = {"ttft": outcome.ttft, "tpot": outcome.tpot, "e2el": outcome.latency}
        return all(1000 * times[name] <= limit for name, limit in limits.items())

    return sum(map(kept, good))


def _busiest_second(good: Sequence[Outcome]) -> float:
    """Tokens in the fullest second from the first request on; of a request whose pieces are fewer
    than its tokens, each piece has as many."""
    if not good:
        return 0.0
    begin, seconds = min(outcome.start for outcome in good), defaultdict[int, float](float)
    for outcome in good:
        time, tokens = outcome.start + outcome.ttft, outcome.output_tokens / (1 + len(outcome.itl))
        for gap in (0.0, *outcome.itl):
            time += gap
            seconds[int(time - begin)] += tokens
    return round(max(seconds.values()), 6)


def _most_at_once(good: Sequence[Outcome]) -> int:
    events = [(outcome.start, 1) for outcome in good]
    events += [(outcome.start + outcome.latency, -1) for outcome in good]
    most = running = 0
    for _, change in sorted(events):
        running += change
        most = max(most, running)
    return most
