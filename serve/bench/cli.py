"""`ingot bench` and its commands. Owns flags and what is printed."""

import inspect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from engine.errors import ConfigError
from serve.bench import options
from serve.bench.compare.cli import compare, prefix_cache
from serve.bench.offline_cli import latency, predicted, startup, structured, throughput
from serve.bench.option_groups import (
    ResultOptions,
    SampleOptions,
    SamplingOptions,
    ServerOptions,
    TrafficOptions,
)
from serve.bench.printing import print_paths, report, write_json
from serve.commands import options as engine_options
from serve.commands.help import Commands
from serve.commands.option_groups import takes
from serve.http.server_address import bracketed

app = Commands(help="Measure a server, or the engine by itself.", no_args_is_help=True)
_console = Console()


@app.command()
@takes(ServerOptions, SampleOptions, TrafficOptions, SamplingOptions, ResultOptions)
def serve(**given: Any) -> None:
    """Put load on an OpenAI-compatible server, whoever's it is."""
    _put_load(given)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def sweep(
    context: typer.Context,
    max_concurrency: Annotated[str | None, typer.Option(help="Values to try, as 1,4,16.")] = None,
    request_rate: Annotated[str | None, typer.Option(help="Values to try, as 1,2,inf.")] = None,
    seed: options.Seed = 0,
    result_dir: options.ResultDir = Path("sweep"),
    plot: options.Plot = None,
) -> None:
    """Run `ingot bench serve` once for each value; its other options follow.

    Each run has a seed of its own, so that random prompts are in no cache of the run before.
    """
    name, values = _swept(max_concurrency, request_rate)
    if plot:
        from serve.bench.plots import check_plots

        check_plots()
    results, command = [], typer.main.get_command(app)
    for number, value in enumerate(values):
        filename = f"{name}-{value}.json"
        own = [f"--{name}", value, "--save-result", "--result-filename", filename]
        own += ["--seed", str(seed + number)]
        arguments = ["serve", *context.args, *own, "--result-dir", str(result_dir)]
        _console.rule(f"{name} {value}", align="left")
        if command(arguments, standalone_mode=False):
            raise typer.Exit(1)
        results.append(json.loads((result_dir / filename).read_text()))
    if plot:
        from serve.bench.plots import draw_sweep

        print_paths(_console, draw_sweep(results, name, values, plot))


for _command in (latency, throughput, startup, compare, prefix_cache, structured, predicted):
    app.command()(_command)


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
    write_json(_console, found, output_json)


@app.command()
def host(
    rows: Annotated[str, typer.Option(help="Requests at a time, as 8,64,256.")] = "8,64,256",
    device_ms: Annotated[float, typer.Option(min=0, help="How long a device step takes.")] = 5.0,
    num_steps: Annotated[int, typer.Option(min=1, help="Steps that are timed.")] = 200,
    scheduling_policy: Annotated[
        str,
        typer.Option(
            "--scheduling-policy",
            "--schedule-policy",
            help="Those that are measured while 1,000 requests wait, as fcfs,priority,lpm.",
        ),
    ] = "fcfs,lpm",
    parts: Annotated[
        str, typer.Option(help="Which, of decode,renewed,waiting,pipeline,long_prompt.")
    ] = "decode,renewed,waiting,pipeline,long_prompt",
    output_json: options.OutputJson = None,
) -> None:
    """The host's work in a step, on a device that computes nothing."""
    from serve.bench.host import measure_host, tables

    numbers = [int(number) for number in _numbers(rows, "--rows")]
    if min(numbers) < 1:
        raise ConfigError(f"--rows must be at least 1, got {rows}.")
    found = measure_host(
        numbers, device_seconds=device_ms / 1e3, steps=num_steps, parts=parts.split(","),
        policies=scheduling_policy.split(","),
    )  # fmt: skip
    for made in tables(found):
        _console.print(made)
    write_json(_console, found, output_json)


@app.command()
def families(
    rows: Annotated[int, typer.Option(help="Requests at a time.", min=1)] = 8,
    num_steps: Annotated[int, typer.Option(help="Steps of a turn.", min=1)] = 32,
    rounds: Annotated[int, typer.Option(help="Turns of each family.", min=1)] = 9,
    hidden_size: Annotated[int, typer.Option(help="A multiple of 128.", min=128)] = 512,
    num_layers: Annotated[int, typer.Option(help="Layers.", min=4)] = 8,
    only: Annotated[
        str, typer.Option(help="Which; the first is what others are compared with.")
    ] = "dense,experts,latent,mamba,mamba2,delta,conv,rglru,cross,gpt2",
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
    write_json(_console, found, output_json)


@app.command()
def front(
    streams: Annotated[int, typer.Option(min=1, help="Streams of the demo model at a time.")] = 256,
    output_json: options.OutputJson = None,
) -> None:
    """The HTTP front: its start, its rates, and what it bears."""
    from serve.bench.front import measure_front

    report(_console, measure_front(streams), output_json)


def _put_load(given: dict[str, Any]) -> None:
    """What `serve` does with its arguments; exits 1 if a request failed."""
    from serve.bench.serving import run, save, show

    chosen, plot = _serve_options(given), given["plot"]
    if plot:
        from serve.bench.plots import check_plots

        check_plots()
    done = run(chosen)
    show(done, chosen.metrics, _console)
    detailed = given["save_detailed"]
    if given["save_result"] or detailed:
        path = save(done, given["result_dir"], given["result_filename"], detailed=detailed)
        print_paths(_console, [path])
    if plot:
        from serve.bench.plots import draw_run

        name = str(done.result["model_id"]).rpartition("/")[2]
        title = f"{name}: {done.result['num_prompts']} requests"
        print_paths(_console, draw_run(done.load, title, plot))
    raise typer.Exit(1 if done.result["failed"] else 0)


def _serve_options(given: dict[str, Any]) -> Any:
    """The command's arguments as `ServeOptions`."""
    from serve.bench.arrivals import Arrivals
    from serve.bench.samples import DatasetOptions
    from serve.bench.serving import ServeOptions

    def pick(kind: Any, **others: Any) -> Any:
        return kind(**{k: given[k] for k in kind.__dataclass_fields__ if k in given} | others)

    headers = {name.lower(): value for name, value in _pairs("--header", given["header"])}
    if given["api_key"]:
        headers["authorization"] = f"Bearer {given['api_key']}"
    sampling = {name: given[name] for name in inspect.get_annotations(SamplingOptions)}
    sampling = {name: value for name, value in sampling.items() if value is not None}
    return pick(
        ServeOptions,
        dataset=pick(DatasetOptions, name=given["dataset_name"], path=given["dataset_path"]),
        arrivals=pick(Arrivals),
        headers=headers,
        base_url=given["base_url"] or f"http://{bracketed(given['host'])}:{given['port']}",
        extra_body=sampling | _extra_body(given["extra_body"]),
        lora_modules=given["lora_modules"] or (),
        metadata=dict(_pairs("--metadata", given["metadata"])),
        goodput=given["goodput"] or (),
        metrics=given["percentile_metrics"].split(","),
        percentiles=_numbers(given["metric_percentiles"], "--metric-percentiles"),
    )


def _swept(max_concurrency: str | None, request_rate: str | None) -> tuple[str, list[str]]:
    if (max_concurrency is None) == (request_rate is None):
        raise ConfigError("A sweep needs either --max-concurrency 1,4,16 or --request-rate 1,2.")
    name = "max-concurrency" if request_rate is None else "request-rate"
    values = (max_concurrency or str(request_rate)).split(",")
    if any(number <= 0 for number in _numbers(",".join(values), f"--{name}")):
        raise ConfigError(f"--{name} must be above 0, got {','.join(values)}.")
    return name, values


def _pairs(flag: str, texts: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    for text in texts or ():
        name, separator, value = text.partition("=")
        if not separator:
            raise ConfigError(f"{flag} takes NAME=VALUE, got {text!r}.")
        yield name.strip(), value.strip()


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
