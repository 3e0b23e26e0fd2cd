"""`ingot bench front`: what the HTTP front costs and bears, beside an engine that costs nothing.

Rates are of a second of the front's own CPU time, for the front is one thread: other work on the
machine changes them little. Only the last measurement has a real engine. Linux: it reads /proc.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.request import urlopen

import msgspec

from serve.bench.cpu_time import CpuMeter
from serve.bench.free_port import free_port
from serve.bench.results import percentile
from serve.bench.scripted import STEP_VARIABLE

_START_SECONDS = 300.0
_IDLE_SECONDS = 10.0  # in which the engine has heard of all that its front has
_TICK = 1 / os.sysconf("SC_CLK_TCK")  # as exact as CPU times are
_PROMPT = "Once upon a time"
_HEAD = (
    b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: "
)
_DELAY = "ingot:chunk_delay_seconds_bucket"


@dataclass(frozen=True)
class Reply:
    """What a client saw of one answer."""

    status: int
    chunks: int
    seconds: float


class Front:
    """A running server, its front seen from outside."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self._process = process
        self._meter = CpuMeter(process.pid)
        self.port = port

    def get(self, path: str) -> str:
        """The body of an answer; raises OSError where there is none, or another than 200."""
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            text: str = answer.read().decode()
            return text

    def wait_for(self, path: str) -> None:
        """Return once `path` is answered with 200."""
        deadline = monotonic() + _START_SECONDS
        while monotonic() < deadline:
            try:
                self.get(path)
                return
            except OSError:
                if self._process.poll() is not None:
                    break
                sleep(0.01)
        raise RuntimeError("the server did not start")

    def cpu_seconds(self) -> float:
        """Of the front alone, so far."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, stat[11:13])) * _TICK

    def family_cpu_seconds(self) -> float:
        """Of the front and the engine."""
        return self._meter.seconds()

    def wait_until_quiet(self) -> None:
        """Until neither does anything."""
        self._meter.wait_until_quiet(_START_SECONDS)

    def megabytes(self) -> float:
        """Resident memory of the front, in 10^6 bytes."""
        return _megabytes(self._process.pid)

    def family_megabytes(self) -> float:
        """Of the front, the engine, and what they started."""
        return sum(map(_megabytes, self._meter.family()))

    def descriptors(self) -> int:
        """Files and sockets that the front has open."""
        return _descriptors(self._process.pid)

    def family_descriptors(self) -> int:
        """That all of them have open."""
        return sum(map(_descriptors, self._meter.family()))

    def metric(self, name: str) -> float:
        """The sum over all labels."""
        lines = self.get("/metrics").splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{"))


def _megabytes(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextmanager
def running(
    *flags: str, module: str = "serve.bench.scripted_server", step: float = 0.0
) -> Iterator[Front]:
    """A server with the scripted engine, whose steps take `step` seconds, or with a real one."""
    port = free_port()
    command = [sys.executable, "-m", module, "serve", "demo", "--port", str(port), *flags]
    environment = {**os.environ, STEP_VARIABLE: str(step)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield Front(process, port)
    finally:
        process.terminate()
        process.wait()


def measure_front(streams: int = 256) -> dict[str, Any]:
    """Everything, in the order in which it is printed."""
    found: dict[str, Any] = {}
    began = monotonic()
    with running() as front:
        front.wait_for("/livez")
        found["front_start_s"] = monotonic() - began
        front.wait_for("/health")
        found["front_start_mb"] = front.megabytes()
        found |= measure_completions(front) | measure_dropped(front)
    with running(step=0.005) as front:
        front.wait_for("/health")
        found |= measure_chunks(front)
    with running("--max-num-seqs", "8", "--max-num-queued-reqs", "8", step=0.02) as front:
        front.wait_for("/health")
        found |= measure_rejections(front)
    with running(step=0.05) as front:
        front.wait_for("/health")
        found |= measure_aborts(front)
    with running("--max-num-seqs", str(streams), module="serve") as front:
        front.wait_for("/health")
        found |= measure_streams(front, streams)
    return found


def measure_completions(front: Front, count: int = 2000, at_once: int = 16) -> dict[str, Any]:
    """Short completions, each on a connection of its own."""
    _check(_ask(front, [_body(max_tokens=4)] * 100, at_once))
    cpu, began = front.cpu_seconds(), monotonic()
    replies = _ask(front, [_body(max_tokens=4)] * count, at_once)
    cpu, wall = front.cpu_seconds() - cpu, monotonic() - began
    return {
        "completions_failed": sum(reply.status != 200 for reply in replies),
        "completions_per_cpu_s": count / max(cpu, _TICK),
        "completions_per_s": count / wall,
    }


def measure_chunks(front: Front, streams: int = 64, tokens: int = 500) -> dict[str, Any]:
    """What a chunk costs; a front that falls behind its engine puts several tokens into one."""
    cpu = front.cpu_seconds()
    replies = _ask(front, [_body(max_tokens=tokens, stream=True)] * streams, streams)
    cpu = front.cpu_seconds() - cpu
    _check(replies)
    chunks = sum(reply.chunks - 1 for reply in replies)  # without [DONE]
    return {
        "chunks_per_token": chunks / (streams * tokens),
        "chunks_per_cpu_s": chunks / max(cpu, _TICK),
    }


def measure_dropped(front: Front, count: int = 1000) -> dict[str, Any]:
    """What is left of streams whose clients leave after the first chunk."""
    body = _body(max_tokens=10_000, stream=True)
    _check(_ask(front, [body] * count, 50, leave_after=1))
    _wait_until_idle(front)
    memory, files = front.megabytes(), front.descriptors()
    _ask(front, [body] * count, 50, leave_after=1)
    _wait_until_idle(front)
    left = front.metric("vllm:num_requests_running")  # on a connection, which is one of the files
    deadline = monotonic() + _IDLE_SECONDS  # a busy machine closes them late
    while (now := front.descriptors()) > files and monotonic() < deadline:
        sleep(0.01)
    return {
        "dropped_left_running": left,
        "dropped_left_files": now - files,
        "dropped_left_mb": front.megabytes() - memory,
    }


def measure_rejections(front: Front, count: int = 500) -> dict[str, Any]:
    """How long a client waits for the word that the queue is full."""

    async def run() -> list[Reply]:
        long = _body(max_tokens=100_000, stream=True)
        full = [asyncio.create_task(_one(front.port, long, None)) for _ in range(16)]
        while front.metric("vllm:num_requests_waiting") < 8:
            await asyncio.sleep(0.05)
            _check(task.result() for task in full if task.done())
        replies = await _gather(front, [_body(max_tokens=4)] * count, 8, None)
        for task in full:
            task.cancel()
        return replies

    replies = asyncio.run(run())
    times = [reply.seconds for reply in replies]
    return {
        "rejected": sum(reply.status == 503 for reply in replies),
        "rejection_p50_ms": 1e3 * percentile(times, 50),
        "rejection_p99_ms": 1e3 * percentile(times, 99),
    }


def measure_aborts(front: Front, count: int = 20) -> dict[str, Any]:
    """Steps in which the engine works for a client that has left, after the one at that moment."""
    body, extra = _body(max_tokens=100, stream=True), []
    for _ in range(count):
        before = front.metric("ingot:steps_total")
        [reply] = _ask(front, [body], 1, leave_after=3)
        _check([reply])
        _wait_until_idle(front)
        extra.append(front.metric("ingot:steps_total") - before - reply.chunks)
    return {"steps_after_drop_p50": percentile(extra, 50), "steps_after_drop_max": max(extra)}


def measure_streams(front: Front, streams: int, tokens: int = 128) -> dict[str, Any]:
    """Streams of the demo model: the front's own delay once all are open, and its share of the
    work."""
    body = _body(max_tokens=tokens, stream=True)
    _check(_ask(front, [body] * streams, streams))
    front.wait_until_quiet()  # the engine has compiled everything
    family, cpu = front.family_cpu_seconds(), front.cpu_seconds()  # the longer time around it
    seen: dict[float, float] = {}

    async def run() -> list[Reply]:
        replies = asyncio.create_task(_gather(front, [body] * streams, streams, None))
        while await asyncio.to_thread(front.metric, "vllm:num_requests_running") < streams:
            if replies.done():
                raise RuntimeError("the first streams ended before the last began")
            await asyncio.sleep(0.1)
        seen.update(await asyncio.to_thread(_delays, front))
        return await replies

    replies = asyncio.run(run())
    cpu, family = front.cpu_seconds() - cpu, front.family_cpu_seconds() - family
    counts = {le: count - seen[le] for le, count in _delays(front).items()}
    whole = counts[float("inf")]
    p99 = min(le for le, count in counts.items() if count >= 0.99 * whole)
    return {
        "streams_failed": sum(r.status != 200 or r.chunks < 2 for r in replies),
        "stream_chunks": whole,
        "stream_delay_p99_below_ms": 1e3 * p99,
        "stream_delay_share_below_20_ms": counts[0.02] / whole,
        "front_share_of_cpu": cpu / max(family, _TICK),
    }


def _delays(front: Front) -> dict[float, float]:
    """Upper bounds in seconds, and how many chunks were within them."""
    lines = [line for line in front.get("/metrics").splitlines() if line.startswith(_DELAY)]
    pairs = (line.partition('le="')[2].split('"', 1)[0] for line in lines)
    return {
        float(le): float(line.rpartition(" ")[2]) for le, line in zip(pairs, lines, strict=True)
    }


def _check(replies: Iterable[Reply]) -> None:
    """Raise RuntimeError if any was no answer: what is measured then would be something else."""
    wrong = next((reply for reply in replies if reply.status != 200), None)
    if wrong is not None:
        raise RuntimeError(f"a request was answered with status {wrong.status}")


def _wait_until_idle(front: Front) -> None:
    while msgspec.json.decode(front.get("/load"))["server_load"]:
        sleep(0.01)
    deadline = monotonic() + _IDLE_SECONDS
    while front.metric("vllm:num_requests_running") and monotonic() < deadline:
        sleep(0.01)
    sleep(0.3)  # connections are closed


def _body(**fields: Any) -> bytes:
    return msgspec.json.encode({"prompt": _PROMPT, "ignore_eos": True, "temperature": 0, **fields})


def _ask(
    front: Front, bodies: Sequence[bytes], at_once: int, leave_after: int | None = None
) -> list[Reply]:
    return asyncio.run(_gather(front, bodies, at_once, leave_after))


async def _gather(
    front: Front, bodies: Sequence[bytes], at_once: int, leave_after: int | None
) -> list[Reply]:
    gate = asyncio.Semaphore(at_once)

    async def one(body: bytes) -> Reply:
        async with gate:
            return await _one(front.port, body, leave_after)

    return await asyncio.gather(*map(one, bodies))


class _Client(asyncio.Protocol):
    """Reads one answer as cheaply as can be, for it shares the machine with what is measured."""

    def __init__(self, leave_after: int | None) -> None:
        self._leave_after = leave_after
        self._begin = self._rest = b""
        self.chunks = 0
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    @property
    def status(self) -> int:
        """That of the answer, 0 before there is one."""
        return int(self._begin[9:12] or 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._begin = self._begin or data
        data = self._rest + data
        self.chunks += data.count(b"data: ")
        self._rest = data[-5:]  # a mark may be cut in two
        if self._leave_after is not None and self.chunks >= self._leave_after:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(exc)


async def _one(port: int, body: bytes, leave_after: int | None) -> Reply:
    """Ask once on a new connection; leave it after so many chunks, or at the end."""
    began, loop = monotonic(), asyncio.get_running_loop()
    transport, client = await loop.create_connection(
        lambda: _Client(leave_after), "127.0.0.1", port
    )
    transport.write(_HEAD + str(len(body)).encode() + b"\r\n\r\n" + body)
    try:
        broken = await client.lost
    finally:
        transport.close()
    return Reply(0 if broken else client.status, client.chunks, monotonic() - began)
