"""`ingot bench compare`: its options, and what is printed."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from serve.bench import options

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
Clients = Annotated[int, typer.Option(help="Requests at a time.", rich_help_panel=_WORK)]
NumPrompts = Annotated[int, typer.Option(help="Requests of a round.", rich_help_panel=_WORK)]
InputLen = Annotated[int, typer.Option(help="Tokens of a prompt.", rich_help_panel=_WORK)]
OutputLen = Annotated[int, typer.Option(help="Tokens of an answer.", rich_help_panel=_WORK)]


def compare(
    model: ModelFolder = None,
    gguf: Gguf = None,
    peers: Peers = "transformers,llama.cpp,vllm",
    llama_server: LlamaServer = None,
    vllm_python: VllmPython = None,
    transformers_python: TransformersPython = None,
    rounds: Rounds = 5,
    clients: Clients = 16,
    num_prompts: NumPrompts = 32,
    input_len: InputLen = 128,
    output_len: OutputLen = 128,
    output_json: options.OutputJson = None,
) -> None:
    """The same weights and work through Ingot and its peers, in float32, greedily."""
    from serve.bench.compare.command import CompareOptions, run

    console = Console()
    found = run(
        CompareOptions(
            model=model, gguf=gguf, peers=[name for name in peers.split(",") if name],
            rounds=rounds, clients=clients, num_prompts=num_prompts, input_len=input_len,
            output_len=output_len, llama_server=llama_server, vllm_python=vllm_python,
            transformers_python=transformers_python,
        ),
        console,
    )  # fmt: skip
    for comparison in found:
        console.print(comparison.table())
    if output_json is not None:
        content = {comparison.mode: comparison.as_json() for comparison in found}
        output_json.write_text(json.dumps(content, indent=2))
        console.print(f"written: {output_json}")
