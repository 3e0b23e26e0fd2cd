"""`ingot bench throughput`, `latency`, `startup`, `structured`, `predicted`: an engine by itself.

Owns their options; what they measure is in the files of those names.
"""

import inspect
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from engine.errors import ConfigError
from serve.bench import options
from serve.bench.option_groups import EngineOptions, OfflineSampleOptions, StepOptions
from serve.bench.printing import report, write_json
from serve.commands import options as engine_options
from serve.commands.option_groups import takes
from serve.commands.status import status

if TYPE_CHECKING:
    from engine import LLM
    from serve.bench.samples import DatasetOptions

_console = Console()


@takes(OfflineSampleOptions, EngineOptions, StepOptions)
def throughput(
    input_len: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of a prompt of random; else 1024, or what fits."),
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Answers to each prompt.")] = 1,
    max_num_seqs: engine_options.MaxNumSeqs = None,
    enable_prefix_caching: engine_options.EnablePrefixCaching = True,
    output_json: options.OutputJson = None,
    **given: Any,
) -> None:
    """All prompts at once through the engine, without a server."""
    from serve.bench.offline import measure_throughput
    from serve.bench.samples import make_samples, that_fits
    from serve.bench.serving import load_tokenizer

    dataset = _dataset(given, input_len)
    settings = _settings(
        given, max_num_seqs=max_num_seqs, enable_prefix_caching=enable_prefix_caching
    )
    tokenizer = load_tokenizer(settings["model"])
    is_random = dataset.name == "random"
    samples = [] if is_random else make_samples(dataset, tokenizer)
    with _loaded(settings) as llm:
        if is_random:
            context = llm.core.info.max_model_len
            dataset = that_fits(dataset, context, wanted=input_len)
            samples = make_samples(dataset, tokenizer)
        report(_console, measure_throughput(llm, samples, n=n), output_json)


@takes(EngineOptions, StepOptions)
def latency(
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts at a time.")] = 8,
    input_len: Annotated[int, typer.Option(min=1, help="Tokens of a prompt.")] = 32,
    output_len: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 128,
    n: Annotated[int, typer.Option(min=1, help="Answers to each prompt.")] = 1,
    num_iters_warmup: Annotated[int, typer.Option(min=0, help="Runs before the clock.")] = 10,
    num_iters: Annotated[int, typer.Option(min=1, help="Runs that count.")] = 30,
    output_json: options.OutputJson = None,
    **given: Any,
) -> None:
    """One batch again and again through the engine, without a server."""
    from serve.bench.offline import measure_latency
    from serve.bench.samples import DatasetOptions, make_samples
    from serve.bench.serving import load_tokenizer

    dataset = DatasetOptions(num_prompts=batch_size, random_input_len=input_len)
    # what a run leaves in the prefix cache would be found by the next
    settings = _settings(given, max_num_seqs=batch_size * n, enable_prefix_caching=False)
    samples = make_samples(dataset, load_tokenizer(settings["model"]))
    with _loaded(settings) as llm:
        found = measure_latency(
            llm, [sample.token_ids for sample in samples],
            output_len=output_len, n=n, warmups=num_iters_warmup, iterations=num_iters,
        )  # fmt: skip
    report(_console, found, output_json)


@takes(EngineOptions)
def startup(
    shape: Annotated[
        str | None,
        typer.Option(help="llama-125m: that shape, untrained, as in compare, instead of --model."),
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(
            help="A converted folder of the same model, started in turns with it; if it is not "
            "there it is written first, as `ingot convert` does."
        ),
    ] = None,
    num_iters_cold: Annotated[
        int, typer.Option(help="Starts with an empty compile cache.", min=1)
    ] = 1,
    num_iters_warm: Annotated[
        int, typer.Option(help="Starts with a full compile cache.", min=1)
    ] = 3,
    max_num_seqs: engine_options.MaxNumSeqs = None,
    output_json: options.OutputJson = None,
    **given: Any,
) -> None:
    """Start the engine with an empty compile cache, then with a full one."""
    from serve.bench.startup import convert, measure_startup, tables, untrained

    name = shape or given["model"]
    with TemporaryDirectory() as folder:
        if shape:
            given["model"] = str(untrained(shape, Path(folder)))
        settings = _settings(given, max_num_seqs=max_num_seqs)
        if beside is not None and not beside.exists():
            convert(settings, beside)
        other = None if beside is None else str(beside)
        found = measure_startup(
            settings, cold_starts=num_iters_cold, warm_starts=num_iters_warm, beside=other,
            tell=partial(_console.print, highlight=False, style="dim"),
        )  # fmt: skip
    for table in tables(found, (name, str(beside))):
        _console.print(table)
    write_json(_console, found, output_json)


@takes(EngineOptions)
def structured(
    schema: Annotated[Path | None, typer.Option(help="A JSON schema; else a small one.")] = None,
    streams: Annotated[int, typer.Option(help="Rows that are measured.", min=1)] = 8,
    neighbours: Annotated[int, typer.Option(help="Rows beside them.", min=1)] = 16,
    output_len: Annotated[int, typer.Option(help="Tokens of a stream.", min=2)] = 100,
    rounds: Annotated[int, typer.Option(help="Times that both run.", min=1)] = 15,
    tensor_parallel_size: engine_options.TensorParallelSize = 1,
    output_json: options.OutputJson = None,
    **given: Any,
) -> None:
    """Streams beside rows that keep to a JSON schema, and beside rows that do not."""
    from serve.bench.structured import Load, measure_structured, read_schema, table

    load, wanted = Load(streams, neighbours, output_len, rounds), read_schema(schema)
    settings = _settings(given, tensor_parallel_size=tensor_parallel_size)
    found = measure_structured(settings, load, wanted)
    _console.print(table(found))
    write_json(_console, found, output_json)


@takes(EngineOptions, StepOptions)
def predicted(
    streams: Annotated[int, typer.Option(help="Answers that are written at once.", min=1)] = 1,
    output_len: Annotated[int, typer.Option(help="Tokens of an answer.", min=2)] = 128,
    rounds: Annotated[int, typer.Option(help="Times that all run.", min=1)] = 5,
    output_json: options.OutputJson = None,
    **given: Any,
) -> None:
    """Answers of which something is known before they are written, and the same without."""
    from serve.bench.predicted import Load, measure_predicted, table

    found = measure_predicted(_settings(given), Load(streams, output_len, rounds))
    _console.print(table(found))
    write_json(_console, found, output_json)


def _settings(given: dict[str, Any], **own: Any) -> dict[str, Any]:
    """What `LLM` takes: those of the options that are the engine's, and the command's `own`. A
    model that is a name on the hub is downloaded."""
    from engine.config import make_config
    from engine.model_files import located

    names = inspect.get_annotations(EngineOptions) | inspect.get_annotations(StepOptions)
    settings = {name: given[name] for name in names if name in given}
    where = {name: settings.pop(name) for name in ("model", "revision", "download_dir")}
    found = located(make_config(**where, load_format=settings["load_format"]))
    objects = engine_options.parse_objects(settings, ("hf_overrides", "speculative_config"))
    return {**settings, **objects, **own, "model": found.model}


def _loaded(settings: dict[str, Any]) -> "LLM":
    """An engine that compiles no more; on a terminal a line says so until then."""
    from engine import LLM

    with status(f"loading and compiling {settings['model']} ..."):
        llm = LLM(**settings)
        llm.core.wait_for_programs()
    return llm


def _dataset(given: dict[str, Any], length: int | None) -> "DatasetOptions":
    """The dataset of the options; its prompts have that `length`, or lengths of their own."""
    from serve.bench.samples import DatasetOptions

    fields = {key: given[key] for key in DatasetOptions.__dataclass_fields__ if key in given}
    name = given["dataset_name"]
    if name == "random":  # whose lengths vary around these
        fields |= {"random_input_len": length or 1024, "output_len": None}
        fields |= {"random_output_len": given["output_len"] or 128}
    elif name in ("multi_turn", "random-rerank", "custom_audio"):
        raise ConfigError(f"{name} takes a server: use `ingot bench serve`.")
    elif length is not None:
        instead = "; use --prefix-repetition-prefix-len and -suffix-len"
        raise ConfigError(
            f"--input-len is for --dataset-name random, and {name} has lengths of its own"
            f"{instead if name == 'prefix_repetition' else ''}."
        )
    return DatasetOptions(name, given["dataset_path"], **fields)
