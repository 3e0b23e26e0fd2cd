"""The command `ingot`: serve, router, generate, chat, check, run-batch, convert, bench, env.

Owns the commands and their exit codes: every error that Ingot raises on purpose is one sentence on
stderr and exit code 2. Engine, HTTP and JAX are imported by the command that needs them.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct
from rich.console import Console

from engine.config import EngineConfig, make_config
from models.errors import IngotError
from serve.bench.cli import app as bench
from serve.commands import answer_options, operation_options, options
from serve.commands.adapter_options import parse_lora_modules
from serve.commands.help import Commands
from serve.commands.option_groups import (
    AdapterOptions,
    AnswerOptions,
    HttpOptions,
    MemoryOptions,
    ModelOptions,
    OperationOptions,
    takes,
)
from serve.commands.peer_options import PeerOptions, our_name
from serve.commands.status import status
from serve.router.command import router

if TYPE_CHECKING:
    from serve.settings import ServerSettings

_ENGINE_OBJECTS = (
    "pooler_config", "hf_overrides", "profiler_config", "speculative_config", "watermark_config",
)  # fmt: skip
_SERVER_OBJECTS = (
    "default_chat_template_kwargs", "override_generation_config", "structured_outputs_config",
)  # fmt: skip
app = Commands(
    name="ingot",
    help="Run language models on JAX: an OpenAI-compatible server, and a prompt in the terminal.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"token_normalize_func": our_name},
)
app.add_typer(bench, name="bench")


def _show_version(asked: bool) -> None:
    if asked:
        from serve.version import ingot_version

        typer.echo(f"ingot {ingot_version()}")
        raise typer.Exit


@app.callback()
def _ingot(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command()
@takes(
    ModelOptions, MemoryOptions, AdapterOptions, AnswerOptions, HttpOptions, OperationOptions,
    PeerOptions,
)  # fmt: skip
def serve(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=options.MODEL_HELP)] = None,
    named_model: options.NamedModel = None,
    **given: Any,
) -> None:
    """Serve MODEL over HTTP with OpenAI's API.

    SIGTERM ends it when requests have; SIGUSR2 does once its successor serves.
    """
    from serve.commands.run import run_server

    if model is not None and named_model not in (None, model):
        raise typer.BadParameter("MODEL and --model name two models; give one.")
    model = model or named_model or "demo"
    raise typer.Exit(run_server(*_settings({"model": model, **given})))


app.command()(router)


def _settings(given: dict[str, Any]) -> tuple[EngineConfig, "ServerSettings"]:
    """Those of the engine and of the server, from the options of a command."""
    from serve.fallback.apis import parse_fallbacks
    from serve.settings import ServerSettings, make_settings

    engine_config = make_config(**_engine_settings(given))
    given = {
        **given,
        **options.parse_objects(given, _SERVER_OBJECTS),
        "api_keys": given.get("api_key") or (),
        "fallbacks": parse_fallbacks(given.get("fallback_url")),
        "served_model_names": given["served_model_name"] or (),
        "allowed_hosts": options.parse_hosts(given.get("allowed_hosts")),
        "allowed_origins": options.parse_list("--allowed-origins", given.get("allowed_origins")),
    }
    given["structured_outputs_config"] = given["structured_outputs_config"] or {}
    return engine_config, make_settings(**_fields_of(ServerSettings, given))


def _engine_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Of the options of a command, those that are the engine's."""
    given = {**given, **options.parse_objects(given, _ENGINE_OBJECTS)}
    given["logits_processors"] = given["logits_processors"] or ()
    given["lora_modules"] = parse_lora_modules(given.get("lora_modules"))
    return _fields_of(EngineConfig, given)


@app.command()
@takes(ModelOptions, MemoryOptions)
def generate(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The text to continue.")],
    model: options.Model = "demo",
    max_tokens: answer_options.MaxTokens = 128,
    temperature: answer_options.Temperature = None,
    top_p: answer_options.TopP = None,
    top_k: answer_options.TopK = None,
    stop: answer_options.Stop = None,
    **given: Any,
) -> None:
    """Continue PROMPT and print the text as it comes."""
    from serve.commands.terminal import print_continuation

    print_continuation(
        prompt,
        _given(max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, stop=stop),
        **_engine_settings({"model": model, **given}),
    )


@app.command()
@takes(ModelOptions, MemoryOptions)
def chat(
    model: options.Model = "demo",
    system: Annotated[str | None, typer.Option(help="The system prompt.")] = None,
    max_tokens: answer_options.MaxTokens = None,
    temperature: answer_options.Temperature = None,
    top_p: answer_options.TopP = None,
    top_k: answer_options.TopK = None,
    **given: Any,
) -> None:
    """Talk to the model; an empty line or Ctrl-D ends it."""
    from serve.commands.terminal import converse

    converse(
        system,
        _given(temperature=temperature, top_p=top_p, top_k=top_k) | {"max_tokens": max_tokens},
        **_engine_settings({"model": model, **given}),
    )


@app.command()
def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=options.MODEL_HELP)],
    revision: options.Revision = None,
    download_dir: options.DownloadDir = None,
    prompt: Annotated[
        str | None, typer.Option(help="What is run through the layers, if not a sentence of ours.")
    ] = None,
    max_tokens: answer_options.MaxTokens = 16,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Share of the deviation by which logits may differ; if not given, 0.001 in "
            "float32 and 0.1 otherwise.",
        ),
    ] = None,
    dtype: options.Dtype = "float32",
    quantization: options.Quantization = None,
    max_model_len: options.MaxModelLen = None,
    hf_overrides: options.HfOverrides = None,
    tensor_parallel_size: options.TensorParallelSize = 1,
) -> None:
    """Load MODEL and compare it with transformers, layer by layer, where that is installed."""
    from serve.commands.check import PROMPT, check_model

    settings = {
        "model": model, "revision": revision, "download_dir": download_dir,
        "dtype": dtype, "quantization": quantization,
        "max_model_len": max_model_len, "tensor_parallel_size": tensor_parallel_size,
        "hf_overrides": options.parse_object("--hf-overrides", hf_overrides),
    }  # fmt: skip
    raise typer.Exit(
        check_model(Console(), prompt or PROMPT, max_tokens or 1, tolerance, **settings)
    )


@app.command("run-batch")
@takes(ModelOptions, MemoryOptions, AdapterOptions, AnswerOptions, PeerOptions)
def run_batch(
    input_file: Annotated[Path, typer.Option("--input-file", "-i", help="Requests, as JSONL.")],
    output_file: Annotated[Path, typer.Option("--output-file", "-o", help="Where answers go.")],
    model: options.Model = "demo",
    watchdog_timeout: operation_options.WatchdogTimeout = 300.0,
    **given: Any,
) -> None:
    """Answer a file of requests in OpenAI's batch format, without a server."""
    from serve.commands.batch import run_batch_file

    given |= {"model": model, "watchdog_timeout": watchdog_timeout}
    config, settings = _settings(given)
    done, failed = run_batch_file(config, settings, input_file, output_file)
    typer.echo(f"{done} requests answered, {failed} failed; see {output_file}")
    raise typer.Exit(1 if failed and not done else 0)


@app.command()
def convert(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A local folder, a name on the hub, or 'demo'.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")],
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = None,
    tensor_parallel_size: options.TensorParallelSize = 1,
    save_format: options.SaveFormat = "safetensors",
) -> None:
    """Write a model once more, as its weights lie on the devices, so that it starts faster."""
    from engine.model_files import located
    from models.checkpoints.convert import convert as write
    from models.sharding import make_mesh

    folder = located(make_config(model=model)).model
    mesh = make_mesh(tensor_parallel_size)
    with status(f"writing {out} ..."):
        write(folder, out, mesh, dtype=dtype, quantization=quantization, save_format=save_format)
    typer.echo(f"written: {out}; give that folder to `ingot serve`, with the same options")


@app.command()
def env(
    as_json: Annotated[bool, typer.Option("--json", help="For programs and bug reports.")] = False,
) -> None:
    """Show versions, devices, processor, memory and settings of this machine."""
    import json

    from serve.commands.env import gather, show

    facts = gather()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        show(facts, Console())


def main() -> None:
    """The entry point: runs the command, and turns errors into one sentence."""
    try:
        app()
    except IngotError as error:
        _say_wrong(str(error))
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None:
            raise
        _say_wrong(f"Cannot use {error.filename}: {error.strerror}.")
        sys.exit(2)


def _say_wrong(sentence: str) -> None:
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"[bold red]error:[/] {_escaped(sentence)}", highlight=False)


def _fields_of(kind: type[Struct], given: dict[str, Any]) -> dict[str, Any]:
    """Those of the `given` options that are settings of this kind."""
    return {name: given[name] for name in kind.__struct_fields__ if name in given}


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
