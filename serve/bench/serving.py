"""`ingot bench serve`: samples, traffic, a server, and the result."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
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
from serve.bench.samples import DatasetOptions, Sample, make_samples

_CHOSEN_LENGTHS = (
    "random",
    "prefix_repetition",
    "multi_turn",
)  # ending early would change the work
_TOGETHER = {"vllm-rerank": "random-rerank", "openai-audio": "custom_audio"}
_WITHOUT_IGNORE_EOS = ("openai-responses", "openai-audio", *WHOLE)  # refuse what they do not know


class BenchError(IngotError):
    """A benchmark that could not be run, for no fault of its options."""

    exit_code = 1


@dataclass(frozen=True)
class ServeOptions:
    """Everything that `ingot bench serve` can be told."""

    dataset: DatasetOptions
    arrivals: Arrivals
    backend: str = "openai"
    base_url: str = "http://127.0.0.1:8000"
    endpoint: str | None = None
    model: str | None = None
    tokenizer: str = "demo"
    headers: Mapping[str, str] = field(default_factory=dict)
    extra_body: dict[str, Any] = field(default_factory=dict)
    ignore_eos: bool | None = None
    temperature: float | None = None
    max_concurrency: int | None = None
    num_warmups: int = 0
    profile: bool = False
    goodput: Sequence[str] = ()
    metrics: Sequence[str] = ("ttft", "tpot", "itl")
    percentiles: Sequence[float] = (99.0,)

    def __post_init__(self) -> None:
        for name in self.metrics:
            if name not in METRICS:
                known = ", ".join(METRICS)
                raise ConfigError(f"--percentile-metrics takes {known}; got {name!r}.")
        if not all(0 <= share <= 100 for share in self.percentiles):
            raise ConfigError("--metric-percentiles must be from 0 to 100.")
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
    tokenizer = load_tokenizer(options.tokenizer)
    samples = make_samples(options.dataset, tokenizer)
    client, load, counted = asyncio.run(_measure(options, samples, tokenizer, console))
    return ServeRun(
        {
            "date": now(),
            "backend": options.backend,
            "endpoint_type": client.backend,
            "model_id": client.model,
            "tokenizer_id": options.tokenizer,
            "dataset": options.dataset.name,
            "num_prompts": sum(len(sample.turns) for sample in samples),
            "request_rate": _finite(options.arrivals.request_rate),
            "burstiness": options.arrivals.burstiness,
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
            console.print(f"[red]The first error:[/] {outcome.error}", highlight=False)
            return


def save(run: ServeRun, folder: Path, filename: str | None, *, detailed: bool) -> Path:
    """Write the result's JSON file, under vLLM's name for it unless another is given."""
    result = run.result
    rate, model = result["request_rate"], str(result["model_id"]).rpartition("/")[2]
    name = filename or f"{result['backend']}-{rate}qps-{model}-{result['date']}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    content = result | details(run.load) if detailed else result
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content)))
    return path


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a model folder, or of a name on the hub; ConfigError if it has none."""
    config = located(make_config(model=name, load_format="dummy"))  # no weights are downloaded
    tokenizer = Tokenizer.load(find_folder(config.model))
    if tokenizer is None:
        raise ConfigError(f"{name} has no tokenizer; give one with --tokenizer.")
    return tokenizer


async def _measure(
    options: ServeOptions, samples: list[Sample], tokenizer: Tokenizer, console: Console | None
) -> tuple[Client, Load, dict[str, Any]]:
    """The load's outcomes, and what the server counted meanwhile."""
    server = Server.parse(options.base_url)
    backend = BACKENDS.get(options.backend, options.backend)
    ignore_eos = options.ignore_eos
    if ignore_eos is None:
        chosen = options.dataset.name in _CHOSEN_LENGTHS
        ignore_eos = chosen and backend not in _WITHOUT_IGNORE_EOS
    client = Client(
        server,
        options.model or await _served_model(server, options.headers),
        backend,
        options.endpoint,
        dict(options.headers),
        ignore_eos,
        options.temperature,
        options.extra_body,
        tokenizer,
    )
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
    return client, load, after.since(before)


async def _profile(server: Server, what: str, headers: Mapping[str, str]) -> None:
    """Start or stop the server's profiler, which writes where the server was told to."""
    try:
        await server.fetch("POST", f"/{what}_profile", headers=headers)
    except (HttpError, OSError) as error:
        raise BenchError(
            f"--profile takes a server with POST /{what}_profile, and this one answers: {error}"
        ) from None


async def _served_model(server: Server, headers: Mapping[str, str]) -> str:
    """The first model that the server lists."""
    try:
        answer = msgspec.json.decode(await server.fetch("GET", "/v1/models", headers=headers))
        return str(answer["data"][0]["id"])
    except OSError as error:
        raise BenchError(
            f"No server answers at {server.host}:{server.port} ({error}); start one with "
            "`ingot serve`, or name another with --base-url."
        ) from None
    except (HttpError, msgspec.MsgspecError, LookupError, TypeError) as error:
        raise BenchError(f"The server does not say which model it serves ({error}).") from None


async def _warm_up(client: Client, samples: list[Sample], options: ServeOptions) -> None:
    """One request must work before many are sent."""
    first = await client.run(samples[0])
    if not first.success:
        sizes = f"{len(samples[0].token_ids)} tokens in and {samples[0].output_len} out"
        raise BenchError(f"The server failed a first request, of {sizes}: {first.error}")
    firsts = [replace(sample, then=()) for sample in samples]
    rest = [firsts[index % len(firsts)] for index in range(options.num_warmups)]
    times = [0.0] * len(rest)
    await put_load(client, rest, times, max_concurrency=options.max_concurrency)


def _finite(rate: float) -> float | str:
    """JSON knows no infinity."""
    return "inf" if math.isinf(rate) else rate
