"""Options about who gets how many tokens in a step, and how they are drawn; as in `options`."""

from typing import Annotated, Any, Literal

import typer

from serve.commands.options import parse_count

_LIMITS = "Limits and memory"


def parse_steps(text: str) -> int | Literal["auto"]:
    """A number, or "auto"."""
    return "auto" if str(text) == "auto" else parse_count(text)


SchedulingPolicy = Annotated[
    str, typer.Option(help="fcfs, priority, or lpm: longest prefix first.", rich_help_panel=_LIMITS)
]
AsyncScheduling = Annotated[
    bool,
    typer.Option(
        "--async-scheduling/--no-async-scheduling",
        help="Start each step before the one before it is read, so that the device never waits.",
        rich_help_panel=_LIMITS,
    ),
]
NumSchedulerSteps = Annotated[
    Any,
    typer.Option(
        parser=parse_steps,
        metavar="STEPS",
        help="Decode steps that the device has at once while no request waits, and that one which "
        "comes may wait for: auto (on CPUs up to 4, if they take less than 0.1 s), 1, or 4, 8 or "
        "16 as two programs of half as many; without async scheduling 2 too, as one program. "
        "Less work for the host, tokens in bursts.",
        rich_help_panel=_LIMITS,
    ),
]
SpeculativeConfig = Annotated[
    str | None,
    typer.Option(
        "--speculative-config", "-sc",
        help="Guess what comes next from what stood behind the same tokens before, and compute the "
        'guesses in rows that are free, as JSON: {"num_speculative_tokens": 5}, and '
        '"prompt_lookup_max" and "prompt_lookup_min", the tokens that must be the same (4 to 2). '
        "Answers stay as they are.",
        metavar="JSON",
        rich_help_panel=_LIMITS,
    ),
]  # fmt: skip
WatermarkConfig = Annotated[
    str | None,
    typer.Option(
        envvar="INGOT_WATERMARK_CONFIG",
        show_envvar=True,
        help="Draw tokens so that who has a secret can tell the texts from others, as JSON: "
        '{"key": 42}, and "context_width" (4), "deduplicate_contexts" (single_turn or none), '
        '"deduplicate_contexts_max_history" (8192).',
        metavar="JSON",
        rich_help_panel="Sampling",
    ),
]
