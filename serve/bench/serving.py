"""`ingot bench serve`: samples, traffic, a server, and the result."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from engine.config import make_config
from engine.errors import ConfigError
from engine.model_files import located
from engine.tokenizers.tokenizer import Tokenizer
from models.checkpoints.checkpoint import find_folder
from models.errors import IngotError
from serve.bench.arrivals import Arrivals
from serve.bench.drafts import read_drafts
from serve.bench.http_client import HttpError, Server
from serve.bench.load import Load, put_load
from serve.bench.requests import BACKENDS, ENDPOINTS, WHOLE, Client
from serve.bench.results import METRICS, details, now, parse_goodput, summarise, table
from serve.bench.samples import (
    ASSIGNMENTS,
    DatasetOptions,
    Sample,
    make_samples,
    with_adapters,
)
from serve.bench.target import BenchError, reach

_CHOSEN_LENGTHS = (
    "random",
    "prefix_repetition",
    "multi_turn",
)  # ending early would change the work
_TOGETHER = {"vllm-rerank": "random-rerank", "openai-audio": "custom_audio"}
_WITHOUT_IGNORE_EOS = ("openai-responses", "openai-audio", *WHOLE)  # refuse what they do not know


@dataclass(frozen=True)
class ServeOptions:
    """Everything that `ingot bench serve` can be told."""

    dataset: DatasetOptions
    arrivals: Arrivals
    backend: str = "openai"
    base_url: str = "http://127.0.0.1:8000"
    endpoint: str | None = None
    model: str | None = None
    tokenizer: str | None = None  # the served model's own
    lora_modules: Sequence[str] = ()
    lora_assignment: str = "random"
    ready_check_timeout: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)
    extra_body: dict[str, Any] = field(default_factory=dict)
    ignore_eos: bool | None = None
    max_concurrency: int | None = None
    num_warmups: int = 0
    profile: bool = False
    goodput: Sequence[str] = ()
    metrics: Sequence[str] = ("ttft", "tpot", "itl")
    percentiles: Sequence[float] = (99.0,)
    label: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.metrics:
            if name not in METRICS:
                known = ", ".join(METRICS)
                raise ConfigError(f"--percentile-metrics takes {known}; got {name!r}.")
        if not all(0 <= share <= 100 for share in self.percentiles):
            raise ConfigError("--metric-percentiles must be from 0 to 100.")
        if self.lora_assignment not in ASSIGNMENTS:
            names = " or ".join(ASSIGNMENTS)
            raise ConfigError(f"--lora-assignment is {names}, not {self.lora_assignment!r}.")
        if self.backend in WHOLE and self.dataset.name == "multi_turn":
            raise ConfigError(
                "--dataset-name multi_turn goes on with texts; use another --backend."
            )
        for backend, dataset in _TOGETHER.items():
            if (self.backend == backend) != (self.dataset.name == dataset):
                raise ConfigError(f"--backend {backend} and --dataset-name {dataset} go together.")
        if BACKENDS.get(self.backend, self.backend) not in ENDPOINTS:
            known = ", ".join((*ENDPOINTS, *BACKENDS))
            raise ConfigError(f"--backend must be one of {known}; got {self.backend!r}.")


@dataclass(frozen=True)
class ServeRun:
    """One run: its summary, and every request."""

    result: dict[str, Any]
    load: Load


def run(options: ServeOptions, console: Console | None = None) -> ServeRun:
    """Measure a server.

    Raises:
        ConfigError: an option is wrong.
        BenchError: no server answers, or it refuses a first request.
    """
    goodput = parse_goodput(options.goodput)
    server = Server.parse(options.base_url)
    patience = options.ready_check_timeout
    served = asyncio.run(reach(server, options.headers, options.model, patience=patience))
    tokenizer = _tokenizer(options.tokenizer, served.root)
    samples = make_samples(options.dataset, tokenizer)
    seed = options.dataset.seed
    samples = with_adapters(samples, options.lora_modules, options.lora_assignment, seed)
    client = _client(options, server, served.name, tokenizer)
    load, counted = asyncio.run(_measure(options, client, samples, console))
    return ServeRun(
        {
            "date": now(),
            "backend": options.backend,
            "endpoint_type": client.backend,
            "label": options.label,
            "model_id": client.model,
            "tokenizer_id": options.tokenizer or served.root,
            "dataset": options.dataset.name,
            "num_prompts": sum(len(sample.turns) for sample in samples),
            **options.metadata,
            **options.arrivals.described(),
            "max_concurrency": options.max_concurrency,
            **summarise(
                load, percentiles=options.percentiles, metrics=options.metrics, goodput=goodput
            ),
            **counted,
        },
        load,
    )


def show(run: ServeRun, metrics: Sequence[str], console: Console) -> None:
    """The result as a table, and the first error if there was one."""
    console.print(table(run.result, metrics))
    for outcome in run.load.outcomes:
        if outcome.error:
            console.print(f"[red]The first error:[/] {escape(outcome.error)}", highlight=False)
            return


def save(run: ServeRun, folder: Path, filename: str | None, *, detailed: bool) -> Path:
    """Write the result's JSON file, under vLLM's name for it unless another is given."""
    result = run.result
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (filename or _file_name(result))
    content = result | details(run.load) if detailed else result
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content)))
    return path


def _file_name(result: Mapping[str, Any]) -> str:
    rate = f"{result['request_rate']}qps"
    if ramp := result.get("ramp_up_strategy"):
        rate = f"ramp-up-{ramp}-{result['ramp_up_start_rps']}qps-{result['ramp_up_end_rps']}qps"
    if result["max_concurrency"] is not None:
        rate += f"-concurrency{result['max_concurrency']}"
    model = str(result["model_id"]).rpartition("/")[2]
    return f"{result['label'] or result['backend']}-{rate}-{model}-{result['date']}.json"


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a model folder, or of a name on the hub; ConfigError if it has none."""
    config = located(make_config(model=name, load_format="dummy"))  # no weights are downloaded
    tokenizer = Tokenizer.load(find_folder(config.model))
    if tokenizer is None:
        raise ConfigError(f"{name} has no tokenizer; give one with --tokenizer.")
    return tokenizer


def _tokenizer(asked: str | None, served: str) -> Tokenizer:
    """The one that was asked for, or the served model's."""
    if asked is not None:
        return load_tokenizer(asked)
    try:
        return load_tokenizer(served)
    except IngotError as error:
        raise ConfigError(
            f"The served model's tokenizer cannot be had here ({error}); name one with --tokenizer."
        ) from None


def _client(options: ServeOptions, server: Server, model: str, tokenizer: Tokenizer) -> Client:
    backend = BACKENDS.get(options.backend, options.backend)
    ignore_eos = options.ignore_eos
    if ignore_eos is None:
        chosen = options.dataset.name in _CHOSEN_LENGTHS
        ignore_eos = chosen and backend not in _WITHOUT_IGNORE_EOS
    return Client(
        server, model, backend, options.endpoint, dict(options.headers), ignore_eos,
        options.extra_body, tokenizer,
    )  # fmt: skip


async def _measure(
    options: ServeOptions, client: Client, samples: list[Sample], console: Console | None
) -> tuple[Load, dict[str, Any]]:
    """The load's outcomes, and what the server counted meanwhile."""
    server = client.server
    await _warm_up(client, samples, options)
    times = options.arrivals.times(len(samples), options.dataset.seed)
    before = await read_drafts(server, options.headers)
    if options.profile:
        await _profile(server, "start", options.headers)
    with Progress(console=console or Console(stderr=True), transient=True) as progress:
        total = sum(len(sample.turns) for sample in samples)
        task = progress.add_task(f"{total} requests", total=total)
        load = await put_load(
            client,
            samples,
            times,
            max_concurrency=options.max_concurrency,
            done=lambda: progress.advance(task),
        )
    if options.profile:
        await _profile(server, "stop", options.headers)
    after = await read_drafts(server, options.headers)
    return load, after.since(before)


async def _profile(server: Server, what: str, headers: Mapping[str, str]) -> None:
    """Start or stop the server's profiler, which writes where the server was told to."""
    try:
        await server.fetch("POST", f"/{what}_profile", headers=headers)
    except (HttpError, OSError) as error:
        raise BenchError(
            f"--profile takes a server with POST /{what}_profile, and this one answers: {error}"
        ) from None


async def _warm_up(client: Client, samples: list[Sample], options: ServeOptions) -> None:
    """One request must work before many are sent."""
    first = await client.run(samples[0])
    if not first.success:
        sizes = f"{len(samples[0].token_ids)} tokens in and {samples[0].output_len} out"
        raise BenchError(f"The server failed a first request, of {sizes}: {first.error}")
    rest = [replace(samples[0], then=())] * options.num_warmups  # no other is found in a cache
    times = [0.0] * len(rest)
    await put_load(client, rest, times, max_concurrency=options.max_concurrency)
