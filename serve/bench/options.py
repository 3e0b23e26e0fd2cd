"""The options of `ingot bench`: names and defaults are vLLM's."""

from pathlib import Path
from typing import Annotated

import typer

_DATA, _TRAFFIC, _ASKED, _OUTPUT = "Dataset", "Traffic", "Sampling", "Results"

DatasetName = Annotated[
    str,
    typer.Option(
        help="random, prefix_repetition, sharegpt, burstgpt, custom, multi_turn, random-rerank or "
        "custom_audio.",
        rich_help_panel=_DATA,
    ),
]
DatasetPath = Annotated[
    Path | None,
    typer.Option(help="File of sharegpt, burstgpt, custom or custom_audio.", rich_help_panel=_DATA),
]
NumPrompts = Annotated[int, typer.Option(min=1, help="Requests in all.", rich_help_panel=_DATA)]
Seed = Annotated[int, typer.Option(help="Where samples and arrivals begin.", rich_help_panel=_DATA)]
RandomInputLen = Annotated[
    int,
    typer.Option(
        "--random-input-len",
        "--input-len",
        min=1,
        help="Tokens of a prompt.",
        rich_help_panel=_DATA,
    ),
]
RandomOutputLen = Annotated[
    int, typer.Option(min=1, help="Tokens of an answer.", rich_help_panel=_DATA)
]
RandomRangeRatio = Annotated[
    float, typer.Option(help="Lengths vary by this share, both ways.", rich_help_panel=_DATA)
]
RandomPrefixLen = Annotated[
    int, typer.Option(min=0, help="Tokens that all prompts begin with.", rich_help_panel=_DATA)
]
RandomBatchSize = Annotated[
    int, typer.Option(min=1, help="Documents of a query of random-rerank.", rich_help_panel=_DATA)
]
PrefixLen = Annotated[
    int,
    typer.Option(
        "--prefix-repetition-prefix-len", min=0, help="Tokens of a prefix.", rich_help_panel=_DATA
    ),
]
SuffixLen = Annotated[
    int,
    typer.Option(
        "--prefix-repetition-suffix-len", min=0, help="Tokens of a suffix.", rich_help_panel=_DATA
    ),
]
NumPrefixes = Annotated[
    int,
    typer.Option(
        "--prefix-repetition-num-prefixes", min=1, help="Different prefixes.", rich_help_panel=_DATA
    ),
]
NumTurns = Annotated[
    int,
    typer.Option(
        "--multi-turn-num-turns", min=1, help="Turns of a conversation.", rich_help_panel=_DATA
    ),
]
FirstLen = Annotated[
    int,
    typer.Option(
        "--multi-turn-first-len", min=1, help="Tokens of its first message.", rich_help_panel=_DATA
    ),
]
MessageLen = Annotated[
    int,
    typer.Option(
        "--multi-turn-message-len",
        min=1,
        help="Tokens of every other message.",
        rich_help_panel=_DATA,
    ),
]
OutputLen = Annotated[
    int | None,
    typer.Option(
        "--output-len",
        "--sharegpt-output-len",
        "--custom-output-len",
        "--prefix-repetition-output-len",
        min=1,
        help="Tokens of every answer, whatever the dataset says.",
        rich_help_panel=_DATA,
    ),
]

Backend = Annotated[
    str,
    typer.Option(
        help="openai (completions), openai-chat, openai-responses, openai-embeddings, "
        "vllm-pooling, vllm-rerank or openai-audio; vllm and ingot mean openai."
    ),
]
Host = Annotated[str, typer.Option(help="Where the server is.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="On which port.")]
BaseUrl = Annotated[
    str | None, typer.Option(help="Instead of --host and --port, as https://a.example/path.")
]
ReadyCheckTimeout = Annotated[
    float,
    typer.Option(
        "--ready-check-timeout-sec", min=0, help="Seconds to wait for a server that still starts."
    ),
]
Endpoint = Annotated[str | None, typer.Option(help="Path, instead of the backend's own.")]
Model = Annotated[str | None, typer.Option(help="The model's name there; asked for if not given.")]
TokenizerFolder = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        help="A model, as in serve, whose tokens make the prompts; if not given, the one that "
        "the server says it serves.",
    ),
]
LoraModules = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Adapters, of which each request names one as its model; several."
    ),
]
LoraAssignment = Annotated[str, typer.Option(help="Which: random or round-robin.")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar=["OPENAI_API_KEY", "INGOT_API_KEY"], show_envvar=True, help="Sent as a bearer token."
    ),
]
Header = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="Sent with each request; repeatable.")
]
ExtraBody = Annotated[
    str | None, typer.Option(help="A JSON object whose fields go into each request.")
]
IgnoreEos = Annotated[
    bool | None,
    typer.Option(
        "--ignore-eos/--no-ignore-eos",
        help="Generate to the full length; by default so where the dataset makes lengths up.",
        show_default=False,
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        help="Instead of the server's default, as the others here.", rich_help_panel=_ASKED
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(help="The likeliest tokens of so much together.", rich_help_panel=_ASKED),
]
TopK = Annotated[
    int | None, typer.Option(help="So many of the likeliest tokens.", rich_help_panel=_ASKED)
]
MinP = Annotated[
    float | None,
    typer.Option(help="Tokens with this share of the likeliest's.", rich_help_panel=_ASKED),
]
Penalty = Annotated[
    float | None, typer.Option(help="On tokens that came before.", rich_help_panel=_ASKED)
]

RequestRate = Annotated[
    float, typer.Option(help="Requests a second; inf sends all at once.", rich_help_panel=_TRAFFIC)
]
Burstiness = Annotated[
    float,
    typer.Option(help="1 is Poisson, less is burstier.", rich_help_panel=_TRAFFIC),
]
MaxConcurrency = Annotated[
    int | None, typer.Option(min=1, help="Requests in flight at most.", rich_help_panel=_TRAFFIC)
]
NumWarmups = Annotated[
    int, typer.Option(min=0, help="Requests before the clock starts.", rich_help_panel=_TRAFFIC)
]
Profile = Annotated[
    bool,
    typer.Option(
        "--profile",
        help="Have the server profile itself meanwhile: POST /start_profile and /stop_profile.",
        rich_help_panel=_TRAFFIC,
    ),
]
RampUpStrategy = Annotated[
    str | None, typer.Option(help="linear or exponential.", rich_help_panel=_TRAFFIC)
]
RampUpStart = Annotated[
    float,
    typer.Option("--ramp-up-start-rps", help="Rate at the start.", rich_help_panel=_TRAFFIC),
]
RampUpEnd = Annotated[
    float, typer.Option("--ramp-up-end-rps", help="Rate at the end.", rich_help_panel=_TRAFFIC)
]

Goodput = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME:MS",
        help="Limits, as ttft:500, tpot:50 or e2el:9000; several.",
        rich_help_panel=_OUTPUT,
    ),
]
PercentileMetrics = Annotated[
    str, typer.Option(help="Which to show, of ttft, tpot, itl, e2el.", rich_help_panel=_OUTPUT)
]
MetricPercentiles = Annotated[
    str, typer.Option(help="Which percentiles of them, as 50,90,99.", rich_help_panel=_OUTPUT)
]
SaveResult = Annotated[
    bool, typer.Option(help="Write the result as a JSON file.", rich_help_panel=_OUTPUT)
]
SaveDetailed = Annotated[
    bool, typer.Option(help="The same, with what each request did.", rich_help_panel=_OUTPUT)
]
Label = Annotated[
    str | None,
    typer.Option(help="What the result is called, instead of --backend.", rich_help_panel=_OUTPUT),
]
Metadata = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE", help="What the result is to say besides; several.",
        rich_help_panel=_OUTPUT,
    ),
]  # fmt: skip
ResultDir = Annotated[Path, typer.Option(help="Folder of result files.", rich_help_panel=_OUTPUT)]
ResultFilename = Annotated[
    str | None, typer.Option(help="Name of the result file.", rich_help_panel=_OUTPUT)
]
Plot = Annotated[
    Path | None,
    typer.Option(help="Draw PLOT.png and PLOT.svg; needs matplotlib.", rich_help_panel=_OUTPUT),
]
OutputJson = Annotated[
    Path | None, typer.Option(help="Write the numbers to this file.", rich_help_panel=_OUTPUT)
]
