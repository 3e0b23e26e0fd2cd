"""`ingot bench compare` and `prefix-cache`: their options, and what is printed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from serve.bench import options
from serve.bench.printing import write_json

if TYPE_CHECKING:
    from serve.bench.compare.rounds import Comparison

_PEERS, _WORK = "Engines", "Work"

ModelFolder = Annotated[
    Path | None,
    typer.Option("--model", help="A folder; by default a Llama of 125M that nobody trained."),
]
Gguf = Annotated[Path | None, typer.Option(help="The same model for llama.cpp.")]
Peers = Annotated[
    str, typer.Option(help="Which, as transformers,llama.cpp,vllm.", rich_help_panel=_PEERS)
]
LlamaServer = Annotated[
    str | None, typer.Option(help="Path of llama-server.", rich_help_panel=_PEERS)
]
VllmPython = Annotated[
    str | None, typer.Option(help="A Python that has vLLM.", rich_help_panel=_PEERS)
]
TransformersPython = Annotated[
    str | None,
    typer.Option(help="A Python that has PyTorch and transformers.", rich_help_panel=_PEERS),
]
Rounds = Annotated[int, typer.Option(help="Times that each engine runs.", rich_help_panel=_WORK)]
Clients = Annotated[int, typer.Option(min=1, help="Requests at a time.", rich_help_panel=_WORK)]
NumPrompts = Annotated[int, typer.Option(min=1, help="Requests of a round.", rich_help_panel=_WORK)]
Quantization = Annotated[
    str | None,
    typer.Option(help="int8: Ingot's weights, and llama.cpp's in Q8_0.", rich_help_panel=_WORK),
]
ServeArgs = Annotated[
    str,
    typer.Option(
        help="More flags of ingot serve, in one text: '--num-scheduler-steps 8'.",
        rich_help_panel=_PEERS,
    ),
]
InputLen = Annotated[int, typer.Option(min=1, help="Tokens of a prompt.", rich_help_panel=_WORK)]
OutputLen = Annotated[int, typer.Option(min=1, help="Tokens of an answer.", rich_help_panel=_WORK)]


def compare(
    model: ModelFolder = None,
    gguf: Gguf = None,
    peers: Peers = "transformers,llama.cpp,vllm",
    llama_server: LlamaServer = None,
    vllm_python: VllmPython = None,
    transformers_python: TransformersPython = None,
    serve_args: ServeArgs = "",
    rounds: Rounds = 5,
    clients: Clients = 16,
    num_prompts: NumPrompts = 32,
    input_len: InputLen = 128,
    output_len: OutputLen = 128,
    quantization: Quantization = None,
    output_json: options.OutputJson = None,
) -> None:
    """The same weights and work through Ingot and its peers, greedily; in float32 unless said."""
    from serve.bench.compare.command import CompareOptions, run

    console = Console()
    found = run(
        CompareOptions(
            model=model, gguf=gguf, peers=[name for name in peers.split(",") if name],
            rounds=rounds, clients=clients, num_prompts=num_prompts, input_len=input_len,
            output_len=output_len, quantization=quantization, llama_server=llama_server,
            vllm_python=vllm_python, transformers_python=transformers_python,
            serve_args=serve_args,
        ),
        console,
    )  # fmt: skip
    _show(found, console, output_json)


def prefix_cache(
    model: ModelFolder = None,
    rounds: Rounds = 5,
    clients: Clients = 8,
    num_prompts: NumPrompts = 80,
    dataset_name: Annotated[
        str, typer.Option(help="multi_turn or prefix_repetition.", rich_help_panel=_WORK)
    ] = "multi_turn",
    num_turns: options.NumTurns = 10,
    first_len: options.FirstLen = 600,
    message_len: options.MessageLen = 24,
    prefix_len: options.PrefixLen = 921,
    suffix_len: options.SuffixLen = 103,
    num_prefixes: options.NumPrefixes = 4,
    output_len: OutputLen = 32,
    output_json: options.OutputJson = None,
) -> None:
    """Conversations, or prompts with few beginnings, with the prefix cache and without."""
    from serve.bench.compare.command import compare_prefix_cache
    from serve.bench.samples import DatasetOptions

    dataset = DatasetOptions(
        dataset_name, num_prompts=num_prompts, prefix_len=prefix_len, suffix_len=suffix_len,
        num_prefixes=num_prefixes, output_len=output_len, num_turns=num_turns,
        first_len=first_len, message_len=message_len,
    )  # fmt: skip
    console = Console()
    found = compare_prefix_cache(dataset, console, model=model, rounds=rounds, clients=clients)
    _show(found, console, output_json)


def _show(found: "list[Comparison]", console: Console, output_json: Path | None) -> None:
    for comparison in found:
        console.print(comparison.table())
    content = {comparison.mode: comparison.as_json() for comparison in found}
    write_json(console, content, output_json)
