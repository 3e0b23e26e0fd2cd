"""`ingot bench throughput`, `latency`, `startup` and `structured`: an engine without a server.

Owns their options; what they measure is in the files of those names.
"""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from engine.errors import ConfigError
from serve.bench import options
from serve.bench.printing import report, write_json
from serve.commands import options as engine_options
from serve.commands.status import status

if TYPE_CHECKING:
    from engine import LLM
    from serve.bench.samples import DatasetOptions

_console = Console()


def throughput(
    model: engine_options.Model = "demo",
    revision: engine_options.Revision = None,
    download_dir: engine_options.DownloadDir = None,
    hf_overrides: engine_options.HfOverrides = None,
    dataset_name: options.DatasetName = "random",
    dataset_path: options.DatasetPath = None,
    num_prompts: options.NumPrompts = 1000,
    seed: options.Seed = 0,
    input_len: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of a prompt of random; else 1024, or what fits."),
    ] = None,
    output_len: options.OutputLen = None,
    random_range_ratio: options.RandomRangeRatio = 0.0,
    random_prefix_len: options.RandomPrefixLen = 0,
    prefix_len: options.PrefixLen = 256,
    suffix_len: options.SuffixLen = 256,
    num_prefixes: options.NumPrefixes = 10,
    n: Annotated[int, typer.Option(min=1, help="Answers to each prompt.")] = 1,
    dtype: engine_options.Dtype = "auto",
    load_format: engine_options.LoadFormat = "auto",
    quantization: engine_options.Quantization = None,
    max_model_len: engine_options.MaxModelLen = None,
    max_num_seqs: engine_options.MaxNumSeqs = None,
    max_num_batched_tokens: engine_options.MaxNumBatchedTokens = None,
    tensor_parallel_size: engine_options.TensorParallelSize = 1,
    enable_prefix_caching: engine_options.EnablePrefixCaching = True,
    async_scheduling: engine_options.AsyncScheduling = True,
    num_scheduler_steps: engine_options.NumSchedulerSteps = "auto",
    output_json: options.OutputJson = None,
) -> None:
    """All prompts at once through the engine, without a server."""
    given = dict(locals())
    from serve.bench.offline import measure_throughput
    from serve.bench.samples import make_samples, that_fits
    from serve.bench.serving import load_tokenizer

    dataset = _dataset(given)
    where = _where(model, revision, download_dir, load_format, hf_overrides)
    tokenizer = load_tokenizer(where["model"])
    is_random = dataset.name == "random"
    samples = [] if is_random else make_samples(dataset, tokenizer)
    with _loaded(
        **where, dtype=dtype, load_format=load_format, quantization=quantization,
        max_model_len=max_model_len, max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        tensor_parallel_size=tensor_parallel_size, enable_prefix_caching=enable_prefix_caching,
        async_scheduling=async_scheduling, num_scheduler_steps=num_scheduler_steps,
    ) as llm:  # fmt: skip
        if is_random:
            context = llm.core.info.max_model_len
            dataset = that_fits(dataset, context, wanted=input_len)
            samples = make_samples(dataset, tokenizer)
        report(_console, measure_throughput(llm, samples, n=n), output_json)


def latency(
    model: engine_options.Model = "demo",
    revision: engine_options.Revision = None,
    download_dir: engine_options.DownloadDir = None,
    hf_overrides: engine_options.HfOverrides = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts at a time.")] = 8,
    input_len: Annotated[int, typer.Option(min=1, help="Tokens of a prompt.")] = 32,
    output_len: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 128,
    n: Annotated[int, typer.Option(min=1, help="Answers to each prompt.")] = 1,
    num_iters_warmup: Annotated[int, typer.Option(min=0, help="Runs before the clock.")] = 10,
    num_iters: Annotated[int, typer.Option(min=1, help="Runs that count.")] = 30,
    dtype: engine_options.Dtype = "auto",
    load_format: engine_options.LoadFormat = "auto",
    quantization: engine_options.Quantization = None,
    max_model_len: engine_options.MaxModelLen = None,
    max_num_batched_tokens: engine_options.MaxNumBatchedTokens = None,
    tensor_parallel_size: engine_options.TensorParallelSize = 1,
    async_scheduling: engine_options.AsyncScheduling = True,
    num_scheduler_steps: engine_options.NumSchedulerSteps = "auto",
    output_json: options.OutputJson = None,
) -> None:
    """One batch again and again through the engine, without a server."""
    from serve.bench.offline import measure_latency
    from serve.bench.samples import DatasetOptions, make_samples
    from serve.bench.serving import load_tokenizer

    dataset = DatasetOptions(num_prompts=batch_size, random_input_len=input_len)
    where = _where(model, revision, download_dir, load_format, hf_overrides)
    samples = make_samples(dataset, load_tokenizer(where["model"]))
    # what a run leaves in the prefix cache would be found by the next
    with _loaded(
        **where, dtype=dtype, load_format=load_format, quantization=quantization,
        max_model_len=max_model_len, max_num_seqs=batch_size * n,
        max_num_batched_tokens=max_num_batched_tokens,
        tensor_parallel_size=tensor_parallel_size, enable_prefix_caching=False,
        async_scheduling=async_scheduling, num_scheduler_steps=num_scheduler_steps,
    ) as llm:  # fmt: skip
        found = measure_latency(
            llm, [sample.token_ids for sample in samples],
            output_len=output_len, n=n, warmups=num_iters_warmup, iterations=num_iters,
        )  # fmt: skip
    report(_console, found, output_json)


def startup(
    model: engine_options.Model = "demo",
    revision: engine_options.Revision = None,
    download_dir: engine_options.DownloadDir = None,
    hf_overrides: engine_options.HfOverrides = None,
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
    dtype: engine_options.Dtype = "auto",
    load_format: engine_options.LoadFormat = "auto",
    quantization: engine_options.Quantization = None,
    max_model_len: engine_options.MaxModelLen = None,
    max_num_seqs: engine_options.MaxNumSeqs = None,
    max_num_batched_tokens: engine_options.MaxNumBatchedTokens = None,
    output_json: options.OutputJson = None,
) -> None:
    """Start the engine with an empty compile cache, then with a full one."""
    from serve.bench.startup import convert, measure_startup, tables, untrained

    with TemporaryDirectory() as folder:
        where = str(untrained(shape, Path(folder))) if shape else model
        settings = {
            **_where(where, revision, download_dir, load_format, hf_overrides),
            "dtype": dtype, "load_format": load_format, "quantization": quantization,
            "max_model_len": max_model_len, "max_num_seqs": max_num_seqs,
            "max_num_batched_tokens": max_num_batched_tokens,
        }  # fmt: skip
        if beside is not None and not beside.exists():
            convert(settings, beside)
        other = None if beside is None else str(beside)
        found = measure_startup(
            settings, cold_starts=num_iters_cold, warm_starts=num_iters_warm, beside=other,
            tell=partial(_console.print, highlight=False, style="dim"),
        )  # fmt: skip
    for table in tables(found, (shape or model, str(beside))):
        _console.print(table)
    write_json(_console, found, output_json)


def structured(
    model: engine_options.Model = "demo",
    schema: Annotated[Path | None, typer.Option(help="A JSON schema; else a small one.")] = None,
    streams: Annotated[int, typer.Option(help="Rows that are measured.", min=1)] = 8,
    neighbours: Annotated[int, typer.Option(help="Rows beside them.", min=1)] = 16,
    output_len: Annotated[int, typer.Option(help="Tokens of a stream.", min=2)] = 100,
    rounds: Annotated[int, typer.Option(help="Times that both run.", min=1)] = 15,
    dtype: engine_options.Dtype = "auto",
    load_format: engine_options.LoadFormat = "auto",
    quantization: engine_options.Quantization = None,
    max_model_len: engine_options.MaxModelLen = None,
    max_num_batched_tokens: engine_options.MaxNumBatchedTokens = None,
    tensor_parallel_size: engine_options.TensorParallelSize = 1,
    output_json: options.OutputJson = None,
) -> None:
    """Streams beside rows that keep to a JSON schema, and beside rows that do not."""
    from serve.bench.structured import Load, measure_structured, read_schema, table

    settings = {
        "model": model, "dtype": dtype, "load_format": load_format, "quantization": quantization,
        "max_model_len": max_model_len, "max_num_batched_tokens": max_num_batched_tokens,
        "tensor_parallel_size": tensor_parallel_size,
    }  # fmt: skip
    load = Load(streams, neighbours, output_len, rounds)
    found = measure_structured(settings, load, read_schema(schema))
    _console.print(table(found))
    write_json(_console, found, output_json)


def _loaded(**settings: Any) -> "LLM":
    """An engine that compiles no more; on a terminal a line says so until then."""
    from engine import LLM

    with status(f"loading and compiling {settings['model']} ..."):
        llm = LLM(**settings)
        llm.core.wait_for_programs()
    return llm


def _dataset(given: dict[str, Any]) -> "DatasetOptions":
    """The dataset of the command's arguments: its own lengths, where it has them."""
    from serve.bench.samples import DatasetOptions

    fields = {key: given[key] for key in DatasetOptions.__dataclass_fields__ if key in given}
    name, length = given["dataset_name"], given["input_len"]
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
