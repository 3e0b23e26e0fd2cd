"""`ingot bench startup`: how long until the first token, with the compile cache empty and full.

Each start is a process of its own, which reports its parts: Python and imports, loading the
weights, compiling until it can serve, the first token, and the programs that follow in the
background.
"""

import json
import os
import subprocess
import sys
import tempfile
from time import perf_counter, time
from typing import Any

from rich.table import Table

from serve.bench.serving import BenchError

_PARTS = {
    "import": "Python, imports",
    "load": "weights",
    "compile": "compile, until it can serve",
    "first_token": "first token",
    "ready": "all until then",
    "background": "other programs, behind it",
}


def measure_startup(settings: dict[str, Any], *, warm_starts: int = 1) -> dict[str, Any]:
    """Seconds of each part, `cold` once and `warm` each time; raises BenchError."""
    with tempfile.TemporaryDirectory() as cache:
        settings = {**settings, "compilation_cache_dir": cache}
        cold = _start(settings)
        warm = [_start(settings) for _ in range(warm_starts)]
    return {"cold": cold, "warm": warm}


def table(found: dict[str, Any]) -> Table:
    """Seconds of each part, cold and warm."""
    made = Table("seconds", "cold", *("warm" for _ in found["warm"]), box=None, pad_edge=False)
    for part, label in _PARTS.items():
        starts = (found["cold"], *found["warm"])
        made.add_row(label, *(f"{start[part]:.2f}" for start in starts))
    return made


def _start(settings: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", "serve.bench.startup", json.dumps([time(), settings])]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BenchError(f"The engine did not start: {last}")
    parts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return parts


def _report(started: float, settings: dict[str, Any]) -> dict[str, float]:
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
        llm.core.wait_for_programs()
        background = perf_counter() - before
    return {
        "import": imported - started,
        "load": info.load_seconds,
        "compile": info.compile_seconds,
        "first_token": first,
        "ready": ready,
        "background": background,
    }


if __name__ == "__main__":
    print(json.dumps(_report(*json.loads(sys.argv[1]))))
