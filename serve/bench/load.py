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
    """Send sample i at `times[i]` seconds from now; `done` is called as each ends."""
    gate = asyncio.Semaphore(max_concurrency) if max_concurrency else nullcontext()
    meter = CpuMeter.of_server(client.server)
    begin, cpu = perf_counter(), meter.seconds() if meter else 0.0

    async def one(sample: Sample, time: float) -> Outcome:
        await asyncio.sleep(max(0.0, begin + time - perf_counter()))
        async with gate:
            outcome = await client.run(sample)
        done()
        return outcome

    outcomes = await asyncio.gather(*map(one, samples, times))
    duration = perf_counter() - begin
    return Load(outcomes, duration, meter.seconds() - cpu if meter else None)
