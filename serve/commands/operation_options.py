"""Options about what is told of a server, and of one that cannot go on; as in `options`."""

from typing import Annotated

import typer

_OPERATION = "Operation"

KvCacheMetrics = Annotated[
    bool,
    typer.Option(
        "--kv-cache-metrics/--no-kv-cache-metrics",
        help="Show in /metrics how long pages stay in the cache, by a sample of them.",
        rich_help_panel=_OPERATION,
    ),
]
KvCacheMetricsSample = Annotated[
    float, typer.Option(help="Share of pages in that sample.", rich_help_panel=_OPERATION)
]
ProfilerConfig = Annotated[
    str | None,
    typer.Option(
        help='Where /start_profile writes traces, as JSON: {"torch_profiler_dir": "DIR"}, and '
        '"max_iterations" (steps in one), "delay_iterations", "torch_profiler_with_stack".',
        metavar="JSON",
        rich_help_panel=_OPERATION,
    ),
]
EnableSleepMode = Annotated[
    bool,
    typer.Option(
        "--enable-sleep-mode/--no-enable-sleep-mode",
        help="Let operators have weights and KV cache given back while nobody asks (/sleep). Of a "
        "GPU, XLA keeps that memory for JAX in the same process; to others it gives it, by JAX's "
        "documentation, only with XLA_PYTHON_CLIENT_ALLOCATOR=platform, which is slow.",
        rich_help_panel=_OPERATION,
    ),
]
WatchdogTimeout = Annotated[
    float,
    typer.Option(
        help="Seconds that a step may take before the engine is taken for hung, ended and started "
        "again.",
        rich_help_panel=_OPERATION,
    ),
]
FallbackUrl = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL|JSON",
        help="An OpenAI-compatible API for what cannot be answered here: https://host/v1, or "
        '{"url": ..., "api_key_env": "NAME", "model": ..., "timeout": 20}; repeatable, asked in '
        "order.",
        rich_help_panel=_OPERATION,
    ),
]
TryTimeout = Annotated[
    float | None,
    typer.Option(
        help="Seconds until an answer begins, before the next server or API is asked.",
        rich_help_panel=_OPERATION,
    ),
]
