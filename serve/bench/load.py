"""Puts load on a server: sends samples at their times, at most so many at once."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter

from serve.bench.cpu_time import CpuMeter
from serve.bench.requests import Client, Outcome
from serve.bench.samples import Sample


@dataclass(frozen=True)
class Load:
    """What came of it."""

    outcomes: list[Outcome]
    duration: float  # seconds
    cpu_seconds: float | None  # of the server's processes; None where they cannot be seen


async def put_load(
    client: Client,
    samples: Sequence[Sample],
    times: Sequence[float],
    *,
    max_concurrency: int | None = None,
    done: Callable[[], object] = lambda: None,
) -> Load:
    """Send sample i at `times[i]` seconds from now; `done` is called as each request ends.

    A conversation's turns follow one another; after one that fails there is no next.
    """
    gate = asyncio.Semaphore(max_concurrency) if max_concurrency else nullcontext()
    meter = CpuMeter.of_server(client.server)
    begin, cpu = perf_counter(), meter.seconds() if meter else 0.0

    async def one(sample: Sample, time: float) -> list[Outcome]:
        await asyncio.sleep(max(0.0, begin + time - perf_counter()))
        turns = []
        async with gate:
            async for outcome in client.converse(sample):
                turns.append(outcome)
                done()
        return turns

    outcomes = [turn for turns in await asyncio.gather(*map(one, samples, times)) for turn in turns]
    duration = perf_counter() - begin
    still = meter is not None and CpuMeter.of_server(client.server) == meter  # or it has died
    used = meter.seconds() - cpu if meter and still else None
    for outcome in outcomes:
        client.complete(outcome)
    return Load(outcomes, duration, used)
