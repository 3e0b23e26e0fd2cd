"""Flags of vLLM and SGLang that are no options of ours.

    another name of one             stands for it, where it means the same
    what is so anyway               is taken, so that a command line can stay as it is, and refused
                                    where it asks for anything else
    what is never done here         is refused, with what to do instead

None is ever ignored.
"""

from typing import Annotated, Any

import typer

from engine.errors import ConfigError

_PANEL = "As in vLLM and SGLang"
_SPELLINGS = {  # most are SGLang's
    "chunked-prefill-size": "max-num-batched-tokens",
    "context-length": "max-model-len",
    "disable-log-requests": "no-enable-log-requests",  # vLLM's older name
    "disable-overlap-schedule": "no-async-scheduling",
    "disable-radix-cache": "no-enable-prefix-caching",
    "dp-size": "data-parallel-size",
    "enable-memory-saver": "enable-sleep-mode",
    "json-model-override-args": "hf-overrides",
    "log-level-http": "uvicorn-log-level",
    "lora-paths": "lora-modules",
    "max-loaded-loras": "max-cpu-loras",
    "max-loras-per-batch": "max-loras",
    "max-queued-requests": "max-num-queued-reqs",
    "max-running-requests": "max-num-seqs",
    "model-path": "model",
    "num-continuous-decode-steps": "num-scheduler-steps",
    "page-size": "block-size",
    "pp-size": "pipeline-parallel-size",
    "random-seed": "seed",
    "schedule-policy": "scheduling-policy",
    "tokenizer-path": "tokenizer",
    "tp": "tensor-parallel-size",
    "tp-size": "tensor-parallel-size",
}


def our_name(name: str) -> str:
    """Of an option, without the dashes before it: `max_model_len` and `context-length` are
    `max-model-len`."""
    name = name.replace("_", "-")
    return _SPELLINGS.get(name, name)


def _always(flag: str, why: str, *others: str) -> Any:
    """What is so, whether one asks for it or not; `why` is told to who asks for the contrary."""

    def check(value: bool | None) -> None:
        if value is False:
            raise ConfigError(f"--no-{flag} cannot be had: {why}; leave it out.")

    return typer.Option(
        f"--{flag}/--no-{flag}", *others, callback=check, help=f"Always so: {why}.",
        rich_help_panel=_PANEL,
    )  # fmt: skip


def _only(flag: str, value: str, why: str, *others: str) -> Any:
    """What has one value; `why` is told to who asks for another."""

    def check(given: str | None) -> None:
        if given not in (None, value):
            raise ConfigError(f"--{flag} can only be {value}, got {given[:60]!r}: {why}.")

    return typer.Option(f"--{flag}", *others, callback=check, hidden=True)


def _refused(flag: str, instead: str) -> Any:
    """What is not done; `instead` is told to who asks for it."""

    def check(value: Any) -> None:
        if value:
            raise ConfigError(f"--{flag} is not taken: {instead}.")

    return typer.Option(f"--{flag}", callback=check, hidden=True)


EnableChunkedPrefill = Annotated[
    bool | None,
    _always("enable-chunked-prefill", "long prompts are computed in parts beside other requests"),
]
EnableMetrics = Annotated[bool | None, _always("enable-metrics", "metrics are at /metrics")]
DisableLogStats = Annotated[
    bool | None, _always("disable-log-stats", "numbers are at /metrics and in no log")
]
DisableUvicornAccessLog = Annotated[
    bool | None,
    _always("disable-uvicorn-access-log", "requests are logged by --enable-log-requests only"),
]
EnablePromptTokensDetails = Annotated[
    bool | None, _always("enable-prompt-tokens-details", "usage tells what was cached")
]
EnableCacheReport = Annotated[
    bool | None, _always("enable-cache-report", "usage tells what was cached")
]
EnableServerLoadTracking = Annotated[
    bool | None, _always("enable-server-load-tracking", "the load is at /load")
]
GrammarBackend = Annotated[
    str | None, _only("grammar-backend", "llguidance", "there is no other here")
]
PrefixCachingHashAlgo = Annotated[
    str | None,
    _only("prefix-caching-hash-algo", "sha256", "a page of another prompt must never be found"),
]
PipelineParallelSize = Annotated[
    str | None,
    _only("pipeline-parallel-size", "1", "--tensor-parallel-size spreads a model", "-pp"),
]
DataParallelSize = Annotated[
    str | None,
    _only("data-parallel-size", "1", "start more servers, and `ingot router` before them", "-dp"),
]
ApiServerCount = Annotated[
    str | None, _only("api-server-count", "1", "one process answers thousands of requests a second")
]
TrustRemoteCode = Annotated[
    bool,
    _refused(
        "trust-remote-code",
        "no code of a model's repository is ever run; architectures that need some are built in, "
        "or come from an installed package (entry points ingot.models), or, if they compute as a "
        "known one does, by --hf-overrides",
    ),
]
MemFractionStatic = Annotated[
    float | None,
    _refused(
        "mem-fraction-static",
        "it leaves out what steps need; --gpu-memory-utilization is a share for everything",
    ),
]
EnforceEager = Annotated[
    bool,
    _refused("enforce-eager", "every step is a compiled program; there is nothing slower to run"),
]


class PeerOptions:
    """All of them, as a group of `option_groups`."""

    enable_chunked_prefill: EnableChunkedPrefill = None
    enable_metrics: EnableMetrics = None
    disable_log_stats: DisableLogStats = None
    disable_uvicorn_access_log: DisableUvicornAccessLog = None
    enable_prompt_tokens_details: EnablePromptTokensDetails = None
    enable_cache_report: EnableCacheReport = None
    enable_server_load_tracking: EnableServerLoadTracking = None
    grammar_backend: GrammarBackend = None
    prefix_caching_hash_algo: PrefixCachingHashAlgo = None
    pipeline_parallel_size: PipelineParallelSize = None
    data_parallel_size: DataParallelSize = None
    api_server_count: ApiServerCount = None
    trust_remote_code: TrustRemoteCode = False
    mem_fraction_static: MemFractionStatic = None
    enforce_eager: EnforceEager = False
