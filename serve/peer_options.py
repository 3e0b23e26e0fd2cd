"""Flags of vLLM and SGLang that are no options of ours.

    another name of one             stands for it, where it means the same
    what is so anyway               is taken, so that a command line can stay as it is, and refused
                                    where it asks for the contrary
    what is never done here         is refused, with what to do instead

None is ever ignored.
"""

from typing import Annotated, Any

import typer

from engine.errors import ConfigError

_PANEL = "As in vLLM and SGLang"
_SPELLINGS = {  # SGLang's
    "chunked-prefill-size": "max-num-batched-tokens",
    "context-length": "max-model-len",
    "disable-overlap-schedule": "no-async-scheduling",
    "disable-radix-cache": "no-enable-prefix-caching",
    "json-model-override-args": "hf-overrides",
    "log-level-http": "uvicorn-log-level",
    "max-queued-requests": "max-num-queued-reqs",
    "max-running-requests": "max-num-seqs",
    "model-path": "model",
    "num-continuous-decode-steps": "num-scheduler-steps",
    "page-size": "block-size",
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
    trust_remote_code: TrustRemoteCode = False
    mem_fraction_static: MemFractionStatic = None
    enforce_eager: EnforceEager = False
