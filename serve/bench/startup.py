"""`ingot bench startup`: how long until the first token, with the compile cache empty and full.

Each start is a process of its own, which reports its parts: Python and imports, loading the
weights, compiling until it can serve, the programs between steps and the host's memory, the first
token, and the programs that follow in the background.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter, time
from typing import Any

from rich.table import Table

from engine.errors import ConfigError
from serve.bench.compare.checkpoint import Shape, write_folder
from serve.bench.results import PERCENTILES, percentile
from serve.bench.target import BenchError

_SHAPES = {"llama-125m": Shape()}
_PARTS = {
    "import": "Python, imports",
    "load": "weights",
    "compile": "compile, until it can serve",
    "warm_up": "warm-up: what goes between steps",
    "first_token": "first token",
    "ready": "all until then",
    "background": "other programs, behind it",
}
_COMPARED = ("load", "ready")
_OF_VLLM = {"startup": ("load", "compile", "warm_up"), "compilation": ("compile",)}


def measure_startup(
    settings: dict[str, Any],
    *,
    cold_starts: int = 1,
    warm_starts: int = 1,
    beside: str | None = None,
    background: bool = True,
    tell: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Seconds of each part, `cold` and `warm`, each time; raises BenchError.

    `beside` is another folder of the same model, which starts in turn with the first: its starts,
    and of each pair of warm ones the first's time by its own. Without `background`, what is
    compiled after the first token is not waited for. `tell` is told what begins. Of the first
    folder, what vLLM's benchmark of that name gives is there too.
    """
    models = [settings] if beside is None else [settings, {**settings, "model": beside}]
    with ExitStack() as stack:
        cold = []
        for index in range(cold_starts):  # the last one's caches are those of the warm ones
            caches = [stack.enter_context(tempfile.TemporaryDirectory()) for _ in models]
            models = [
                {**model, "compilation_cache_dir": cache}
                for model, cache in zip(models, caches, strict=True)
            ]
            tell(f"cold start {index + 1} of {cold_starts}")
            cold.append([_start(model, background) for model in models])
        warm = []
        for index in range(warm_starts):
            tell(f"warm start {index + 1} of {warm_starts}")
            order = models if index % 2 == 0 else models[::-1]
            starts = [_start(model, background) for model in order]
            warm.append(starts if index % 2 == 0 else starts[::-1])
    first, *others = ({"cold": [starts[place] for starts in cold],
                       "warm": [starts[place] for starts in warm]}
                      for place in range(len(models)))  # fmt: skip
    found: dict[str, Any] = {**first, **_as_vllm("cold", first), **_as_vllm("warm", first)}
    if others:
        ratios = {part: _ratios(part, first["warm"], others[0]["warm"]) for part in _COMPARED}
        found["beside"] = {**others[0], "ratios": ratios}
    return found


def _as_vllm(kind: str, starts: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Result fields of `vllm bench startup`: a start is what `LLM(...)` takes."""
    found: dict[str, Any] = {}
    for name, parts in _OF_VLLM.items():
        seconds = [sum(start[part] for part in parts) for start in starts[kind]]
        found[f"avg_{kind}_{name}_time"] = statistics.fmean(seconds)
        found[f"{kind}_{name}_times"] = seconds
        found[f"{kind}_{name}_percentiles"] = {
            str(share): percentile(seconds, share) for share in PERCENTILES
        }
    return found


def tables(found: dict[str, Any], names: Sequence[str]) -> Iterator[Table]:
    """Seconds of each part, cold and warm, of one model or two, by their names."""
    models = [found, found["beside"]] if "beside" in found else [found]
    for model, name in zip(models, names, strict=False):
        starts = [*model["cold"], *model["warm"]]
        head = f"seconds of {name}" if len(models) > 1 else "seconds"
        heads = (kind for kind in ("cold", "warm") for _ in model[kind])
        made = Table(head, *heads, box=None, pad_edge=False)
        for part, label in _PARTS.items():
            made.add_row(label, *(f"{start[part]:.2f}" for start in starts))
        yield made
    if "beside" in found:
        made = Table(f"{names[0]} by {names[1]}", "median", "least", "most",
                     box=None, pad_edge=False)  # fmt: skip
        for part, ratios in found["beside"]["ratios"].items():
            numbers = statistics.median(ratios), min(ratios), max(ratios)
            made.add_row(_PARTS[part], *(f"{number:.2f}" for number in numbers))
        yield made


def untrained(shape: str, folder: Path) -> Path:
    """A folder of a model of that shape, which nobody trained; raises ConfigError."""
    if shape not in _SHAPES:
        raise ConfigError(f"--shape takes {', '.join(_SHAPES)}; got {shape!r}.")
    return write_folder(folder / shape, _SHAPES[shape])


def convert(settings: dict[str, Any], out: Path) -> None:
    """Write the model as `ingot convert` does; raises BenchError."""
    flags = [
        word
        for name in ("dtype", "quantization")
        if settings[name]
        for word in (f"--{name}", settings[name])
    ]
    command = [sys.executable, "-m", "serve", "convert", settings["model"], str(out), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"The model was not converted: {_last_line(done.stderr)}")


def _last_line(text: str) -> str:
    """Of a traceback: its sentence, without the class that says it."""
    line = (text.strip().splitlines() or ["it said nothing"])[-1]
    return re.sub(r"^(\w+\.)+\w+Error: ", "", line)


def _ratios(
    part: str, first: Sequence[dict[str, float]], second: Sequence[dict[str, float]]
) -> list[float]:
    return [a[part] / b[part] for a, b in zip(first, second, strict=True)]


def _start(settings: dict[str, Any], background: bool) -> dict[str, float]:
    arguments = json.dumps([time(), settings, background])
    command = [sys.executable, "-m", "serve.bench.startup", arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    if done.returncode:
        raise BenchError(f"The engine did not start: {_last_line(done.stderr)}")
    parts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return parts


def _report(started: float, settings: dict[str, Any], background: bool) -> dict[str, float]:
    """Start an engine in this process, which was started at `started`."""
    from engine import LLM, SamplingParams

    imported = time()
    with LLM(**settings) as llm:
        info = llm.core.info
        before = perf_counter()
        llm.generate([[1]], SamplingParams(max_tokens=1, ignore_eos=True), use_tqdm=False)
        first = perf_counter() - before
        ready = time() - started
        before = perf_counter()
        if background:
            llm.core.wait_for_programs()
        waited = perf_counter() - before
    parts = {
        "import": imported - started,
        "load": info.load_seconds,
        "compile": info.compile_seconds - info.warm_up_seconds,
        "warm_up": info.warm_up_seconds,
        "first_token": first,
        "ready": ready,
    }
    return parts | {"background": waited} if background else parts


if __name__ == "__main__":
    print(json.dumps(_report(*json.loads(sys.argv[1]))))
