"""The command `ingot`: serve, router, generate, chat, check, run-batch, convert, bench, env.

Owns the commands and their exit codes: every error that Ingot raises on purpose is one sentence on
stderr and exit code 2. Engine, HTTP and JAX are imported by the command that needs them.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct
from rich.console import Console

from engine.config import EngineConfig, make_config
from models.errors import IngotError
from serve import options
from serve.bench.cli import app as bench
from serve.router.command import router

app = typer.Typer(
    name="ingot",
    help="Run language models on JAX: an OpenAI-compatible server, and a prompt in the terminal.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bench, name="bench")
app.command("router")(router)


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help=options.MODEL_HELP)] = "demo",
    revision: options.Revision = None,
    download_dir: options.DownloadDir = None,
    runner: options.Runner = "auto", convert: options.Convert = "auto",
    pooler_config: options.PoolerConfig = None,
    hf_overrides: options.HfOverrides = None,
    dtype: options.Dtype = "auto",
    load_format: options.LoadFormat = "auto",
    quantization: options.Quantization = None,
    seed: options.Seed = 0,
    max_model_len: options.MaxModelLen = None,
    max_num_seqs: options.MaxNumSeqs = None,
    max_num_batched_tokens: options.MaxNumBatchedTokens = None,
    block_size: options.BlockSize = None,
    attention_backend: options.AttentionBackend = "auto",
    kv_cache_dtype: options.KvCacheDtype = "auto",
    gpu_memory_utilization: options.GpuMemoryUtilization = 0.92,
    kv_cache_memory_bytes: options.KvCacheMemoryBytes = None,
    num_gpu_blocks_override: options.NumGpuBlocksOverride = None,
    kv_offloading_size: options.KvOffloadingSize = None,
    tensor_parallel_size: options.TensorParallelSize = 1,
    scheduling_policy: options.SchedulingPolicy = "fcfs",
    enable_prefix_caching: options.EnablePrefixCaching = True,
    async_scheduling: options.AsyncScheduling = True,
    num_scheduler_steps: options.NumSchedulerSteps = 1,
    logits_processors: options.LogitsProcessors = None,
    compilation_cache_dir: options.CompilationCacheDir = None,
    compilation_cache_size: options.CompilationCacheSize = 4.0,
    host: options.Host = "127.0.0.1", port: options.Port = 8000,
    uds: options.Uds = None, stream_interval: options.StreamInterval = 1,
    ssl_certfile: options.SslCertfile = None, ssl_keyfile: options.SslKeyfile = None,
    allowed_hosts: options.AllowedHosts = None,
    allowed_origins: options.AllowedOrigins = None,
    enable_log_requests: options.EnableLogRequests = False,
    enable_per_request_metrics: options.EnablePerRequestMetrics = False,
    log_level: options.LogLevel = "info", log_format: options.LogFormat = "text",
    otlp_traces_endpoint: options.OtlpTracesEndpoint = None,
    api_key: options.ApiKey = None, admin_api_key: options.AdminApiKey = None,
    served_model_name: options.ServedModelName = None,
    chat_template: options.ChatTemplate = None,
    trust_request_chat_template: options.TrustRequestChatTemplate = False,
    tool_call_parser: options.ToolCallParser = "auto",
    reasoning_parser: options.ReasoningParser = "auto",
    enable_auto_tool_choice: options.EnableAutoToolChoice = True,
    generation_config: options.GenerationConfig = "auto",
    max_num_queued_reqs: options.MaxNumQueuedReqs = None,
    max_concurrent_requests_per_key: options.MaxConcurrentRequestsPerKey = None,
    max_body_bytes: options.MaxBodyBytes = 8 * 1024 * 1024,
    max_audio_clip_filesize_mb: options.MaxAudioClipFilesizeMb = 25,
    shutdown_timeout: options.ShutdownTimeout = 30.0,
    uvicorn_log_level: options.UvicornLogLevel = "warning",
) -> None:  # fmt: skip
    """Serve MODEL over HTTP with OpenAI's API.

    SIGTERM ends it when requests have; SIGUSR2 starts it anew, without refusing a connection.
    """
    raise typer.Exit(_run_server(dict(locals())))


def _run_server(given: dict[str, Any]) -> int:
    """Serve with the options of the command; returns the exit code."""
    from serve.run import run_server
    from serve.settings import ServerSettings, make_settings

    given |= {
        "api_keys": given["api_key"] or (),
        "logits_processors": given["logits_processors"] or (),
        "served_model_names": given["served_model_name"] or (),
        "pooler_config": options.parse_object("--pooler-config", given["pooler_config"]),
        "hf_overrides": options.parse_object("--hf-overrides", given["hf_overrides"]),
        "allowed_hosts": options.parse_hosts(given["allowed_hosts"]),
        "allowed_origins": options.parse_list("--allowed-origins", given["allowed_origins"]),
    }
    engine_config = make_config(**_fields_of(EngineConfig, given))
    return run_server(engine_config, make_settings(**_fields_of(ServerSettings, given)))


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue.")],
    model: options.Model = "demo",
    revision: options.Revision = None,
    download_dir: options.DownloadDir = None,
    max_tokens: options.MaxTokens = 128,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    stop: options.Stop = None,
    dtype: options.Dtype = "auto",
    load_format: options.LoadFormat = "auto",
    quantization: options.Quantization = None,
    seed: options.Seed = 0,
    max_model_len: options.MaxModelLen = None,
    tensor_parallel_size: options.TensorParallelSize = 1,
) -> None:
    """Continue PROMPT and print the text as it comes."""
    from serve.terminal import print_continuation

    print_continuation(
        prompt,
        _given(max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, stop=stop),
        model=model,
        revision=revision,
        download_dir=download_dir,
        dtype=dtype,
        load_format=load_format,
        quantization=quantization,
        seed=seed,
        max_model_len=max_model_len,
        tensor_parallel_size=tensor_parallel_size,
    )


@app.command()
def chat(
    model: options.Model = "demo",
    revision: options.Revision = None,
    download_dir: options.DownloadDir = None,
    system: Annotated[str | None, typer.Option(help="The system prompt.")] = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    dtype: options.Dtype = "auto",
    load_format: options.LoadFormat = "auto",
    quantization: options.Quantization = None,
    seed: options.Seed = 0,
    max_model_len: options.MaxModelLen = None,
    tensor_parallel_size: options.TensorParallelSize = 1,
) -> None:
    """Talk to the model; an empty line or Ctrl-D ends it."""
    from serve.terminal import converse

    converse(
        system,
        _given(temperature=temperature, top_p=top_p, top_k=top_k) | {"max_tokens": max_tokens},
        model=model,
        revision=revision,
        download_dir=download_dir,
        dtype=dtype,
        load_format=load_format,
        quantization=quantization,
        seed=seed,
        max_model_len=max_model_len,
        tensor_parallel_size=tensor_parallel_size,
    )


@app.command()
def check(
    model: Annotated[str, typer.Argument(help=options.MODEL_HELP)],
    revision: options.Revision = None,
    download_dir: options.DownloadDir = None,
    prompt: Annotated[str | None, typer.Option(help="What is run through the layers.")] = None,
    max_tokens: options.MaxTokens = 16,
    tolerance: Annotated[
        float | None, typer.Option(help="Share of the deviation by which logits may differ.")
    ] = None,
    dtype: options.Dtype = "float32",
    quantization: options.Quantization = None,
    max_model_len: options.MaxModelLen = None,
    hf_overrides: options.HfOverrides = None,
    tensor_parallel_size: options.TensorParallelSize = 1,
) -> None:
    """Load MODEL and compare it with transformers, layer by layer, where that is installed."""
    from serve.check import PROMPT, check_model

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
def run_batch(
    input_file: Annotated[Path, typer.Option("--input-file", "-i", help="Requests, as JSONL.")],
    output_file: Annotated[Path, typer.Option("--output-file", "-o", help="Where answers go.")],
    model: options.Model = "demo",
    revision: options.Revision = None,
    download_dir: options.DownloadDir = None,
    served_model_name: options.ServedModelName = None,
    dtype: options.Dtype = "auto",
    load_format: options.LoadFormat = "auto",
    quantization: options.Quantization = None,
    seed: options.Seed = 0,
    max_model_len: options.MaxModelLen = None,
    max_num_seqs: options.MaxNumSeqs = None,
    tensor_parallel_size: options.TensorParallelSize = 1,
) -> None:
    """Answer a file of requests in OpenAI's batch format, without a server."""
    from serve.batch import run_batch_file
    from serve.settings import make_settings

    config = make_config(
        model=model, revision=revision, download_dir=download_dir, dtype=dtype,
        load_format=load_format, quantization=quantization, seed=seed,
        max_model_len=max_model_len, max_num_seqs=max_num_seqs,
        tensor_parallel_size=tensor_parallel_size,
    )  # fmt: skip
    settings = make_settings(served_model_names=served_model_name or ())
    done, failed = run_batch_file(config, settings, input_file, output_file)
    typer.echo(f"{done} requests answered, {failed} failed; see {output_file}")
    raise typer.Exit(1 if failed and not done else 0)


@app.command()
def convert(
    model: Annotated[str, typer.Argument(help="A local folder, or a name on the hub.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = None,
    tensor_parallel_size: options.TensorParallelSize = 1,
    save_format: options.SaveFormat = "safetensors",
) -> None:
    """Write a model once more, as its weights lie on the devices, so that it starts faster."""
    from engine.model_files import located
    from models.convert import convert as write
    from models.sharding import make_mesh

    folder = located(make_config(model=model)).model
    mesh = make_mesh(tensor_parallel_size)
    write(folder, out, mesh, dtype=dtype, quantization=quantization, save_format=save_format)
    typer.echo(f"written: {out}; give that folder to `ingot serve`, with the same options")


@app.command()
def env(
    as_json: Annotated[bool, typer.Option("--json", help="For programs and bug reports.")] = False,
) -> None:
    """Show versions, devices, processor, memory and settings of this machine."""
    import json

    from serve.env import gather, show

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
        Console(stderr=True, soft_wrap=True).print(
            f"[bold red]error:[/] {_escaped(str(error))}", highlight=False
        )
        sys.exit(error.exit_code)


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
