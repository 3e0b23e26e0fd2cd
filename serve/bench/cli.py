"""`ingot bench` and its commands. Owns flags and what is printed."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from engine.errors import ConfigError
from serve import options as engine_options
from serve.bench import options
from serve.bench.compare.cli import compare, prefix_cache
from serve.bench.structured import structured

app = typer.Typer(help="Measure a server, or the engine by itself.", no_args_is_help=True)
app.command()(compare)
app.command()(prefix_cache)
app.command()(structured)
_console = Console()


@app.command()
def serve(
    backend: options.Backend = "openai",
    base_url: options.BaseUrl = "http://127.0.0.1:8000",
    endpoint: options.Endpoint = None,
    model: options.Model = None,
    tokenizer: options.TokenizerFolder = "demo",
    api_key: options.ApiKey = None,
    header: options.Header = None,
    extra_body: options.ExtraBody = None,
    dataset_name: options.DatasetName = "random",
    dataset_path: options.DatasetPath = None,
    num_prompts: options.NumPrompts = 1000,
    seed: options.Seed = 0,
    random_input_len: options.RandomInputLen = 1024,
    random_output_len: options.RandomOutputLen = 128,
    random_range_ratio: options.RandomRangeRatio = 0.0,
    random_prefix_len: options.RandomPrefixLen = 0,
    prefix_len: options.PrefixLen = 256,
    suffix_len: options.SuffixLen = 256,
    num_prefixes: options.NumPrefixes = 10,
    output_len: options.OutputLen = None,
    ignore_eos: options.IgnoreEos = None,
    temperature: options.Temperature = None,
    request_rate: options.RequestRate = float("inf"),
    burstiness: options.Burstiness = 1.0,
    max_concurrency: options.MaxConcurrency = None,
    num_warmups: options.NumWarmups = 0,
    ramp_up_strategy: options.RampUpStrategy = None,
    ramp_up_start_rps: options.RampUpStart = 1.0,
    ramp_up_end_rps: options.RampUpEnd = 1.0,
    goodput: options.Goodput = None,
    percentile_metrics: options.PercentileMetrics = "ttft,tpot,itl",
    metric_percentiles: options.MetricPercentiles = "99",
    save_result: options.SaveResult = False,
    save_detailed: options.SaveDetailed = False,
    result_dir: options.ResultDir = Path("."),
    result_filename: options.ResultFilename = None,
    plot: options.Plot = None,
) -> None:
    """Put load on an OpenAI-compatible server, whoever's it is."""
    given = dict(locals())
    from serve.bench.serving import run, save, show

    chosen = _serve_options(given)
    if plot:
        from serve.bench.plots import check_plots

        check_plots()
    done = run(chosen)
    show(done, chosen.metrics, _console)
    if save_result or save_detailed:
        path = save(done, result_dir, result_filename, detailed=save_detailed)
        _console.print(f"written: {path}")
    if plot:
        from serve.bench.plots import draw_run

        name = str(done.result["model_id"]).rpartition("/")[2]
        title = f"{name}: {done.result['num_prompts']} requests"
        _print_paths(draw_run(done.load, title, plot))
    raise typer.Exit(1 if done.result["failed"] else 0)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def sweep(
    context: typer.Context,
    max_concurrency: Annotated[str | None, typer.Option(help="As 1,4,16.")] = None,
    request_rate: Annotated[str | None, typer.Option(help="As 1,2,inf.")] = None,
    result_dir: options.ResultDir = Path("sweep"),
    plot: options.Plot = None,
) -> None:
    """Run `ingot bench serve` once for each value; its other options follow."""
    name, values = _swept(max_concurrency, request_rate)
    if plot:
        from serve.bench.plots import check_plots

        check_plots()
    results, command = [], typer.main.get_command(app)
    for value in values:
        filename = f"{name}-{value}.json"
        own = [f"--{name}", value, "--save-result", "--result-filename", filename]
        arguments = ["serve", *context.args, *own, "--result-dir", str(result_dir)]
        _console.rule(f"{name} {value}", align="left")
        if command(arguments, standalone_mode=False):
            raise typer.Exit(1)
        results.append(json.loads((result_dir / filename).read_text()))
    if plot:
        from serve.bench.plots import draw_sweep

        _print_paths(draw_sweep(results, values, plot))


@app.command()
def throughput(
    model: engine_options.Model = "demo",
    revision: engine_options.Revision = None,
    download_dir: engine_options.DownloadDir = None,
    hf_overrides: engine_options.HfOverrides = None,
    dataset_name: options.DatasetName = "random",
    dataset_path: options.DatasetPath = None,
    num_prompts: options.NumPrompts = 1000,
    seed: options.Seed = 0,
    input_len: Annotated[int, typer.Option(help="Tokens of a prompt.")] = 1024,
    output_len: Annotated[int, typer.Option(help="Tokens of an answer.")] = 128,
    n: Annotated[int, typer.Option(help="Answers to each prompt.")] = 1,
    dtype: engine_options.Dtype = "auto",
    load_format: engine_options.LoadFormat = "auto",
    quantization: engine_options.Quantization = None,
    max_model_len: engine_options.MaxModelLen = None,
    max_num_seqs: engine_options.MaxNumSeqs = None,
    max_num_batched_tokens: engine_options.MaxNumBatchedTokens = None,
    tensor_parallel_size: engine_options.TensorParallelSize = 1,
    enable_prefix_caching: engine_options.EnablePrefixCaching = True,
    num_scheduler_steps: engine_options.NumSchedulerSteps = 1,
    output_json: options.OutputJson = None,
) -> None:
    """All prompts at once through the engine, without a server."""
    from engine import LLM
    from serve.bench.offline import measure_throughput
    from serve.bench.samples import DatasetOptions, make_samples
    from serve.bench.serving import load_tokenizer

    dataset = DatasetOptions(
        dataset_name, dataset_path, num_prompts, seed, input_len, output_len, output_len=output_len
    )
    where = _where(model, revision, download_dir, load_format, hf_overrides)
    samples = make_samples(dataset, load_tokenizer(where["model"]))
    with LLM(
        **where, dtype=dtype, load_format=load_format, quantization=quantization,
        max_model_len=max_model_len, max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        tensor_parallel_size=tensor_parallel_size, enable_prefix_caching=enable_prefix_caching,
        num_scheduler_steps=num_scheduler_steps,
    ) as llm:  # fmt: skip
        llm.core.wait_for_programs()
        _report(measure_throughput(llm, samples, n=n), output_json)


@app.command()
def latency(
    model: engine_options.Model = "demo",
    revision: engine_options.Revision = None,
    download_dir: engine_options.DownloadDir = None,
    hf_overrides: engine_options.HfOverrides = None,
    batch_size: Annotated[int, typer.Option(help="Prompts at a time.")] = 8,
    input_len: Annotated[int, typer.Option(help="Tokens of a prompt.")] = 32,
    output_len: Annotated[int, typer.Option(help="Tokens of an answer.")] = 128,
    n: Annotated[int, typer.Option(help="Answers to each prompt.")] = 1,
    num_iters_warmup: Annotated[int, typer.Option(help="Runs before the clock.")] = 10,
    num_iters: Annotated[int, typer.Option(help="Runs that count.")] = 30,
    dtype: engine_options.Dtype = "auto",
    load_format: engine_options.LoadFormat = "auto",
    quantization: engine_options.Quantization = None,
    max_model_len: engine_options.MaxModelLen = None,
    max_num_batched_tokens: engine_options.MaxNumBatchedTokens = None,
    tensor_parallel_size: engine_options.TensorParallelSize = 1,
    num_scheduler_steps: engine_options.NumSchedulerSteps = 1,
    output_json: options.OutputJson = None,
) -> None:
    """One batch again and again through the engine, without a server."""
    from engine import LLM
    from serve.bench.offline import measure_latency
    from serve.bench.samples import DatasetOptions, make_samples
    from serve.bench.serving import load_tokenizer

    dataset = DatasetOptions(num_prompts=batch_size, random_input_len=input_len)
    where = _where(model, revision, download_dir, load_format, hf_overrides)
    samples = make_samples(dataset, load_tokenizer(where["model"]))
    # what a run leaves in the prefix cache would be found by the next
    with LLM(
        **where, dtype=dtype, load_format=load_format, quantization=quantization,
        max_model_len=max_model_len, max_num_seqs=batch_size * n,
        max_num_batched_tokens=max_num_batched_tokens,
        tensor_parallel_size=tensor_parallel_size, enable_prefix_caching=False,
        num_scheduler_steps=num_scheduler_steps,
    ) as llm:  # fmt: skip
        llm.core.wait_for_programs()
        found = measure_latency(
            llm, [sample.token_ids for sample in samples],
            output_len=output_len, n=n, warmups=num_iters_warmup, iterations=num_iters,
        )  # fmt: skip
    _report(found, output_json)


@app.command()
def startup(
    model: engine_options.Model = "demo",
    revision: engine_options.Revision = None,
    download_dir: engine_options.DownloadDir = None,
    hf_overrides: engine_options.HfOverrides = None,
    warm_starts: Annotated[int, typer.Option(help="Starts with a full compile cache.")] = 3,
    dtype: engine_options.Dtype = "auto",
    load_format: engine_options.LoadFormat = "auto",
    quantization: engine_options.Quantization = None,
    max_model_len: engine_options.MaxModelLen = None,
    max_num_seqs: engine_options.MaxNumSeqs = None,
    max_num_batched_tokens: engine_options.MaxNumBatchedTokens = None,
    output_json: options.OutputJson = None,
) -> None:
    """Start the engine with an empty compile cache, then with a full one."""
    from serve.bench.startup import measure_startup, table

    settings = {
        **_where(model, revision, download_dir, load_format, hf_overrides),
        "dtype": dtype, "load_format": load_format, "quantization": quantization,
        "max_model_len": max_model_len, "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
    }  # fmt: skip
    found = measure_startup(settings, warm_starts=warm_starts)
    _console.print(table(found))
    _write_json(found, output_json)


@app.command("kv-cache")
def kv_cache(
    text: Annotated[Path, typer.Option(help="A text that the model understands.")],
    model: engine_options.Model = "demo",
    piece_len: Annotated[int, typer.Option(help="Tokens of a piece.", min=2)] = 512,
    num_pieces: Annotated[int, typer.Option(help="Pieces at the most.", min=1)] = 8,
    output_len: Annotated[int, typer.Option(help="Tokens of a continuation.", min=1)] = 128,
    dtype: engine_options.Dtype = "auto",
    quantization: engine_options.Quantization = None,
    tensor_parallel_size: engine_options.TensorParallelSize = 1,
    output_json: options.OutputJson = None,
) -> None:
    """Kinds of KV cache on one text: how many pages fit, and what the quality loses."""
    from serve.bench.kv_cache import measure_kv_cache, read_pieces, table

    pieces = read_pieces(model, text, length=piece_len, count=num_pieces)
    settings = {
        "model": model, "dtype": dtype, "quantization": quantization,
        "tensor_parallel_size": tensor_parallel_size,
        "max_model_len": max(piece_len + 1, piece_len // 2 + output_len),
    }  # fmt: skip
    found = measure_kv_cache(settings, pieces, output_len=output_len)
    _console.print(table(found))
    _write_json(found, output_json)


@app.command()
def host(
    rows: Annotated[str, typer.Option(help="Requests at a time, as 8,64,256.")] = "8,64,256",
    device_ms: Annotated[float, typer.Option(help="How long a device step takes.")] = 5.0,
    num_steps: Annotated[int, typer.Option(help="Steps that are timed.")] = 200,
    output_json: options.OutputJson = None,
) -> None:
    """The host's work in a step, on a device that computes nothing."""
    from serve.bench.host import measure_host, tables

    numbers = [int(number) for number in _numbers(rows, "--rows")]
    found = measure_host(numbers, device_seconds=device_ms / 1e3, steps=num_steps)
    for made in tables(found):
        _console.print(made)
    _write_json(found, output_json)


@app.command()
def families(
    rows: Annotated[int, typer.Option(help="Requests at a time.", min=1)] = 8,
    num_steps: Annotated[int, typer.Option(help="Steps of a turn.", min=1)] = 32,
    rounds: Annotated[int, typer.Option(help="Turns of each family.", min=1)] = 9,
    hidden_size: Annotated[int, typer.Option(help="A multiple of 128.", min=128)] = 512,
    num_layers: Annotated[int, typer.Option(help="Layers.", min=4)] = 8,
    only: Annotated[
        str, typer.Option(help="Which; the first is what others are compared with.")
    ] = "dense,experts,latent,mamba2,delta,gpt2",
    output_json: options.OutputJson = None,
) -> None:
    """A small model of each family, decoding in turns: time for each parameter that is active."""
    from serve.bench.families import Work, measure_families, table
    from serve.bench.family_shapes import Size

    if hidden_size % 128:
        raise ConfigError(f"--hidden-size must be a multiple of 128, got {hidden_size}.")
    size = Size(hidden=hidden_size, layers=num_layers)
    work = Work(rows=rows, steps=num_steps, rounds=rounds)
    found = measure_families(size, work, only.split(","))
    _console.print(table(found))
    _write_json(found, output_json)


@app.command()
def front(
    streams: Annotated[int, typer.Option(help="Streams of the demo model at a time.")] = 256,
    output_json: options.OutputJson = None,
) -> None:
    """The HTTP front: its start, its rates, and what it bears."""
    from serve.bench.front import measure_front

    _report(measure_front(streams), output_json)


def _serve_options(given: dict[str, Any]) -> Any:
    """The command's arguments as `ServeOptions`."""
    from serve.bench.arrivals import Arrivals
    from serve.bench.samples import DatasetOptions
    from serve.bench.serving import ServeOptions

    def pick(kind: Any, **others: Any) -> Any:
        return kind(**{k: given[k] for k in kind.__dataclass_fields__ if k in given} | others)

    headers = dict(_header(one) for one in given["header"] or ())
    if given["api_key"]:
        headers["authorization"] = f"Bearer {given['api_key']}"
    return pick(
        ServeOptions,
        dataset=pick(DatasetOptions, name=given["dataset_name"], path=given["dataset_path"]),
        arrivals=pick(Arrivals),
        headers=headers,
        extra_body=_extra_body(given["extra_body"]),
        goodput=given["goodput"] or (),
        metrics=given["percentile_metrics"].split(","),
        percentiles=_numbers(given["metric_percentiles"], "--metric-percentiles"),
    )


def _where(
    model: str,
    revision: str | None,
    download_dir: str | None,
    load_format: str,
    hf_overrides: str | None,
) -> dict[str, Any]:
    """Settings of the model itself, which is downloaded first if it is a name on the hub."""
    from engine.config import make_config
    from engine.model_files import located

    overrides = engine_options.parse_object("--hf-overrides", hf_overrides)
    config = make_config(
        model=model, revision=revision, download_dir=download_dir, load_format=load_format
    )
    return {"model": located(config).model, "hf_overrides": overrides}


def _swept(max_concurrency: str | None, request_rate: str | None) -> tuple[str, list[str]]:
    if (max_concurrency is None) == (request_rate is None):
        raise ConfigError("A sweep needs either --max-concurrency 1,4,16 or --request-rate 1,2.")
    if max_concurrency is not None:
        return "max-concurrency", max_concurrency.split(",")
    return "request-rate", str(request_rate).split(",")


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ConfigError(f"--header takes NAME=VALUE, got {text!r}.")
    return name.lower(), value


def _extra_body(text: str | None) -> dict[str, Any]:
    try:
        body = json.loads(text or "{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ConfigError(f"--extra-body takes a JSON object, got {text!r}.")
    return body


def _numbers(text: str, flag: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise ConfigError(f"{flag} takes numbers, as 50,99; got {text!r}.") from None


def _report(found: dict[str, Any], target: Path | None) -> None:
    for name, value in found.items():
        if isinstance(value, float | int):
            shown = f"{value:,.3f}" if isinstance(value, float) else str(value)
            _console.print(f"{name:26} {shown}")
    _write_json(found, target)


def _write_json(found: dict[str, Any], target: Path | None) -> None:
    if target is not None:
        target.write_text(json.dumps(found, indent=2))
        _console.print(f"written: {target}")


def _print_paths(paths: list[Path]) -> None:
    for path in paths:
        _console.print(f"written: {path}")
