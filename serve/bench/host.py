"""`ingot bench host`: what the engine's own work costs in each step, without a model.

Everything between a request's message and a step's report is real, the socket included; the device
is `fake_device`'s. Loads are vLLM's worst: short prompts, one token a step and row.
"""

import socket
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from rich.table import Table

from engine.beams.core import BeamCore
from engine.collector import keep_what_is_here
from engine.core import EngineCore
from engine.errors import ConfigError
from engine.messages import AddRequest, EngineStats
from engine.process import Connection, turn
from engine.profiling.profiler import Profiler
from engine.sampling.params import SamplingParams
from engine.scheduling.plan import Plan
from engine.wire import to_frame
from serve.bench.fake_device import VOCAB_SIZE, Clock, make_fake_core
from serve.bench.results import percentile

_PROMPT = 16  # tokens
_PAGE = 64
_CONTEXT = 4096
_KNOWN = 448  # tokens with which prompts begin that are alike, in one of 8 ways
_WAITING = 1000  # requests
PARTS = ("decode", "renewed", "waiting", "pipeline", "long_prompt")
_DRAIN = "import os\nwhile os.read(0, 1 << 20): pass"


@dataclass(frozen=True)
class Load:
    """How many requests run, how long a device step takes, and how many steps are timed."""

    rows: int
    device_seconds: float
    steps: int
    renewed: bool = False  # requests end after 50 to 350 tokens, and others wait for their rows
    alike: bool = False  # many wait, with long prompts that begin alike


def measure_host(
    rows: Sequence[int],
    *,
    device_seconds: float,
    steps: int,
    parts: Sequence[str] = PARTS,
    policies: Sequence[str] = ("fcfs", "lpm"),
    **settings: Any,
) -> dict[str, Any]:
    """Those `parts`: the host's seconds by rows, of rows that decode and of rows that are renewed,
    and by scheduling policy; what the pipeline saves; and what a long prompt costs those who read
    along. Raises ConfigError for one that there is not."""
    load = partial(Load, device_seconds=device_seconds, steps=steps)
    crowd = load(max(rows), renewed=True, alike=True)

    def waiting(policy: str) -> dict[str, Any]:
        found = measure_steps(crowd, **{**settings, "scheduling_policy": policy})
        return {"policy": policy, **found}

    measures: dict[str, Callable[[], Any]] = {
        "decode": lambda: [measure_steps(load(n), **settings) for n in rows],
        "renewed": lambda: [measure_steps(load(n, renewed=True), **settings) for n in rows],
        "waiting": lambda: [waiting(policy) for policy in policies],
        "pipeline": lambda: [measure_pipeline(n, steps) for n in rows],
        "long_prompt": measure_long_prompt,
    }
    for name in parts:
        if name not in measures:
            raise ConfigError(f"--parts takes {', '.join(PARTS)}; got {name!r}.")
    return {"device_us": 1e6 * device_seconds, **{name: measures[name]() for name in parts}}


def measure_steps(load: Load, **settings: Any) -> dict[str, Any]:
    """Microseconds that the host works in a step of this load, and that a step takes in all."""
    tokens = _CONTEXT - _PROMPT
    steps_in_pages = -(-(_PROMPT + load.steps * 2 + 100) // _PAGE)
    pages = load.rows * (6 if load.renewed else steps_in_pages) + 64
    pages += load.alike * load.rows * (_KNOWN // _PAGE + 1)
    with _core(lambda plan: plan.window * load.device_seconds, load.rows, pages, **settings) as (
        core,
        clock,
    ):
        count = load.rows * (2 + load.steps // 200) if load.renewed else load.rows
        count += _WAITING * load.alike
        lengths = np.random.default_rng(1).integers(50, 350, count) if load.renewed else None
        known = _KNOWN * load.alike
        with _front(core, _requests(count, lengths, tokens, known)) as step:
            keep_what_is_here()
            for _ in range(50):
                step()
            host, wall = _time(step, clock, load.steps)
    return {
        "rows": load.rows,
        "host_us": 1e6 * statistics.median(host),
        "host_p99_us": 1e6 * percentile(host, 99),
        "share_of_device": statistics.median(host) / load.device_seconds,
        "step_us": 1e6 * statistics.median(wall),
    }


def measure_pipeline(rows: int, steps: int) -> dict[str, Any]:
    """How much faster steps follow each other with the pipeline than without it, on a device whose
    step takes as long as the host's work for it."""
    alone = measure_steps(Load(rows, 1.0, steps))
    load = Load(rows, alone["host_us"] / 1e6, steps)
    on, off = (measure_steps(load, async_scheduling=on)["step_us"] for on in (True, False))
    return {"rows": rows, "device_us": 1e6 * load.device_seconds, "on_us": on, "off_us": off,
            "ratio": off / on}  # fmt: skip


def measure_long_prompt(streams: int = 32, prompt: int = 32768, **settings: Any) -> dict[str, Any]:
    """Milliseconds between a running stream's tokens while a prompt of 32k tokens is computed.

    A device like an H200 with a model of 8B: 5 ms a step, and 20 us for each token.
    """
    budget = 8192

    def seconds(plan: Plan) -> float:
        return plan.window * (0.005 + 20e-6 * plan.num_tokens)

    pages = (prompt + streams * 512) // _PAGE + 64
    with _core(
        seconds, streams + 1, pages, max_num_batched_tokens=budget, max_model_len=prompt + 256,
        **settings,
    ) as (core, clock):  # fmt: skip
        requests = _requests(streams, None, 300)
        for request in requests:
            core.add(request)
        gaps = _gaps(core, clock, 100)
        long = AddRequest(
            request_id=streams,
            prompt_token_ids=np.random.default_rng(2).integers(3, VOCAB_SIZE, prompt).tolist(),
            params=SamplingParams(max_tokens=8),
        )
        core.add(long)
        gaps += _gaps(core, clock, 100)
    p50, p99 = (1e3 * percentile(gaps, p) for p in (50, 99))
    step = 1e3 * (0.005 + 20e-6 * budget)
    return {
        "p50_itl_ms": p50, "p99_itl_ms": p99, "max_itl_ms": 1e3 * max(gaps),
        "budgeted_step_ms": step, "limit_ms": 2 * p50 + step,
    }  # fmt: skip


def tables(found: dict[str, Any]) -> Iterator[Table]:
    """What `measure_host` found, to be read."""
    for load, title in (("decode", "rows that decode"), ("renewed", "rows that end and begin")):
        if load in found:
            made = _table(title, "host us", "p99", "of the device's step")
            for row in found[load]:
                numbers = f"{row['host_us']:.0f}", f"{row['host_p99_us']:.0f}"
                made.add_row(str(row["rows"]), *numbers, f"{row['share_of_device']:.1%}")
            yield made
    if "waiting" in found:
        made = _table(f"{_WAITING:,} wait", "host us", "p99")
        for row in found["waiting"]:
            made.add_row(row["policy"], f"{row['host_us']:.0f}", f"{row['host_p99_us']:.0f}")
        yield made
    if "pipeline" in found:
        made = _table("device as long as host", "with pipeline us", "without", "ratio")
        for row in found["pipeline"]:
            on, off = f"{row['on_us']:.0f}", f"{row['off_us']:.0f}"
            made.add_row(f"{row['rows']} rows", on, off, f"{row['ratio']:.2f}")
        yield made
    if "long_prompt" in found:
        made = _table("beside a 32k prompt", "ms")
        for name, value in found["long_prompt"].items():
            made.add_row(name.removesuffix("_ms").replace("_", " "), f"{value:.1f}")
        yield made


def _table(*headings: str) -> Table:
    return Table(*headings, box=None, pad_edge=False)


def _gaps(core: EngineCore, clock: Clock, steps: int) -> list[float]:
    """Seconds between the tokens of each request."""
    last: dict[int, float] = {}
    gaps = []
    for _ in range(steps):
        deltas = core.step().deltas
        now = clock.now()
        for delta in deltas:
            if delta.request_id in last:
                gaps.append(now - last[delta.request_id])
            last[delta.request_id] = now
    return gaps


def _time(step: Callable[[], Any], clock: Clock, steps: int) -> tuple[list[float], list[float]]:
    """Seconds of each step that the host worked, and that it took as the clock has it."""
    host, wall = [], []
    for _ in range(steps):
        real, begin = perf_counter(), clock.now()
        step()
        host.append(perf_counter() - real)
        wall.append(clock.now() - begin)
    return host, wall


def _requests(count: int, lengths: Any, tokens: int, known: int = 0) -> list[AddRequest]:
    generator = np.random.default_rng(0)
    beginnings = generator.integers(3, VOCAB_SIZE, (8, known)).tolist()
    own = generator.integers(3, VOCAB_SIZE, (count, _PROMPT)).tolist()
    return [
        AddRequest(
            request_id=number,
            prompt_token_ids=beginnings[number % 8] + own[number],
            params=SamplingParams(
                temperature=1.0,
                top_p=0.9,
                max_tokens=tokens if lengths is None else int(lengths[number]),
                ignore_eos=True,
            ),
        )
        for number in range(count)
    ]


@contextmanager
def _core(
    seconds: Callable[[Plan], float], rows: int, pages: int, **settings: Any
) -> Iterator[tuple[EngineCore, Clock]]:
    chosen = {
        "max_num_seqs": rows, "max_num_batched_tokens": max(2048, rows), "block_size": _PAGE,
        "max_model_len": _CONTEXT, "num_gpu_blocks_override": pages, **settings,
    }  # fmt: skip
    core, clock = make_fake_core(seconds, **chosen)
    try:
        yield core, clock
    finally:
        core.close()


@contextmanager
def _front(core: EngineCore, requests: list[AddRequest]) -> Iterator[Callable[[], Any]]:
    """A function that turns the engine's loop once; another process reads what it reports."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        # in a thread: they may be more than the socket holds before the engine reads
        sender = threading.Thread(target=ours.sendall, args=(to_frame(requests),))
        sender.start()
        reader = subprocess.Popen([sys.executable, "-S", "-c", _DRAIN], stdin=ours.fileno())
        served, connection, stats = BeamCore(core), Connection(theirs), EngineStats()
        profiler = Profiler(None)
        try:
            yield lambda: turn(served, connection, stats, profiler)
        finally:
            theirs.shutdown(socket.SHUT_RDWR)
            sender.join()
            reader.wait()
