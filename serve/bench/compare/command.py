"""From the options of `ingot bench compare` to engines, work and a result."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from engine.errors import ConfigError
from engine.tokenizers.tokenizer import Tokenizer
from serve.bench.compare import peers
from serve.bench.compare.checkpoint import Shape, write_folder, write_gguf
from serve.bench.compare.peers import Peer, Setting
from serve.bench.compare.rounds import Comparison, Mode, run_rounds
from serve.bench.samples import DatasetOptions, Sample, make_samples, shared_share
from serve.bench.serving import load_tokenizer
from serve.bench.target import BenchError

PEERS = ("transformers", "llama.cpp", "vllm")
_SHORT_PROMPT = 16  # of the single stream, so that it is the steps that count
_ROUND_SEED = 1000


@dataclass(frozen=True)
class CompareOptions:
    """Everything that the command can be told."""

    model: Path | None = None
    gguf: Path | None = None
    peers: Sequence[str] = PEERS
    rounds: int = 5
    clients: int = 16
    num_prompts: int = 32
    input_len: int = 128
    output_len: int = 128
    quantization: str | None = None  # int8: Ingot's matrices, and llama.cpp's in Q8_0
    llama_server: str | None = None
    vllm_python: str | None = None
    transformers_python: str | None = None
    serve_args: str = ""  # more flags of ingot serve, as in a shell

    def __post_init__(self) -> None:
        for name in self.peers:
            if name not in PEERS:
                raise ConfigError(f"--peers takes {', '.join(PEERS)}; got {name!r}.")
        if self.quantization not in (None, "int8"):
            raise ConfigError(f"--quantization takes int8; got {self.quantization!r}.")
        try:
            shlex.split(self.serve_args)
        except ValueError as error:
            raise ConfigError(f"--serve-args cannot be split: {error}.") from None
        for flag in ("rounds", "clients", "num_prompts", "input_len", "output_len"):
            if getattr(self, flag) < 1:
                raise ConfigError(f"--{flag.replace('_', '-')} must be at least 1.")

    @property
    def max_len(self) -> int:
        return max(_SHORT_PROMPT, self.input_len) + self.output_len


def run(options: CompareOptions, console: Console, shape: Shape | None = None) -> list[Comparison]:
    """Start what is installed, say what is not, and measure; raises BenchError, ConfigError."""
    with TemporaryDirectory() as folder:
        setting = _setting(
            options, Path(folder), shape or Shape(positions=max(2048, options.max_len))
        )
        tokenizer = load_tokenizer(str(setting.model))
        with started(_starters(options, setting, tokenizer), console) as running:
            modes = _modes(options, tokenizer)
            return run_rounds(running, modes, options.rounds, _teller(console))


def compare_prefix_cache(
    dataset: DatasetOptions, console: Console, *, model: Path | None, rounds: int, clients: int
) -> list[Comparison]:
    """Ingot beside itself without its prefix cache; every round has beginnings of its own."""
    max_len, said = _shared(dataset)
    with TemporaryDirectory() as folder:
        given = model or write_folder(Path(folder) / "dummy", Shape(positions=max(2048, max_len)))
        setting = Setting(given, None, max_len, clients, Path(folder))
        tokenizer = load_tokenizer(str(given))
        starters: dict[str, Callable[[], Peer | str]] = {
            "ingot": lambda: peers.ingot(setting, "with the cache"),
            "without": lambda: peers.ingot(setting, "without", "--no-enable-prefix-caching"),
        }
        mode = Mode(
            f"{clients} clients, {said}",
            clients,
            lambda index: make_samples(replace(dataset, seed=_ROUND_SEED + index), tokenizer),
        )
        with started(starters, console) as running:
            return run_rounds(running, [mode], rounds, _teller(console))


def _shared(dataset: DatasetOptions) -> tuple[int, str]:
    """Tokens of the longest sequence, and how much of the prompts is known; raises ConfigError."""
    answer = dataset.output_len or 0
    if dataset.name == "multi_turn":
        turns, share = dataset.num_turns, shared_share(dataset)
        longest = dataset.first_len + (turns - 1) * (dataset.message_len + answer) + answer
        return longest, f"conversations of {turns} turns, {share:.0%} of their prompts known"
    if dataset.name == "prefix_repetition":
        length = dataset.prefix_len + dataset.suffix_len
        share = dataset.prefix_len / length
        return length + answer, f"{share:.0%} of {length} tokens shared"
    raise ConfigError(
        f"--dataset-name takes multi_turn or prefix_repetition here; got {dataset.name!r}."
    )


def _teller(console: Console) -> Callable[[str], object]:
    """Lines that stay: a comparison takes minutes, and each shows how long the rest will take."""
    return partial(console.print, highlight=False, style="dim")


def _setting(options: CompareOptions, folder: Path, shape: Shape) -> Setting:
    """The model's files: those that were given, or one that nobody trained."""
    model, gguf = options.model, options.gguf
    if model is None:
        model = write_folder(folder / "dummy", shape)
        if "llama.cpp" in options.peers:
            gguf = _gguf(folder / "dummy.gguf", shape, int8=options.quantization is not None)
    return Setting(model, gguf, options.max_len, options.clients, folder)


def _gguf(path: Path, shape: Shape, *, int8: bool) -> Path | None:
    try:
        return write_gguf(path, shape, int8=int8)
    except ImportError:
        return None


def _starters(
    options: CompareOptions, setting: Setting, tokenizer: Tokenizer
) -> dict[str, Callable[[], Peer | str]]:
    known: dict[str, Callable[[], Peer | str]] = {
        "transformers": lambda: peers.transformers(setting, options.transformers_python, tokenizer),
        "llama.cpp": lambda: peers.llama_cpp(setting, options.llama_server),
        "vllm": lambda: peers.vllm(setting, options.vllm_python),
    }
    flags = shlex.split(options.serve_args)
    if options.quantization:
        flags += ["--quantization", options.quantization]
    ours = {"ingot": lambda: peers.ingot(setting, "ingot", *flags)}
    return ours | {name: known[name] for name in options.peers}


@contextmanager
def started(
    starters: dict[str, Callable[[], Peer | str]], console: Console
) -> Iterator[list[Peer]]:
    """Those that start; of the others, why not. Without Ingot there is nothing to compare."""
    running: list[Peer] = []
    try:
        for name, start in starters.items():
            console.print(f"{name} starts", highlight=False, style="dim")
            peer = start()
            if isinstance(peer, str):
                console.print(f"{name}: {peer}", highlight=False, markup=False)
                continue
            running.append(peer)
            try:
                peer.wait()
            except BenchError as error:
                if name == "ingot":
                    raise
                console.print(f"{error}", highlight=False, markup=False)
                running.remove(peer)
                peer.close()
        yield running
    finally:
        for peer in running:
            peer.close()


def _modes(options: CompareOptions, tokenizer: Tokenizer) -> list[Mode]:
    def drawn(count: int, length: int) -> Callable[[int], Sequence[Sample]]:
        return lambda index: make_samples(
            DatasetOptions(
                num_prompts=count, random_input_len=length, seed=_ROUND_SEED + index,
                output_len=options.output_len,
            ),
            tokenizer,
        )  # fmt: skip

    many = f"{options.clients} clients, {options.input_len} in, {options.output_len} out"
    return [
        Mode(f"one stream, {options.output_len} out", 1, drawn(1, _SHORT_PROMPT)),
        Mode(many, options.clients, drawn(options.num_prompts, options.input_len)),
    ]
