"""Whether an attack has harmed anybody: what every row of the table of attacks asks for after it.

the server is healthy, what a neighbour reads is what it was, every page is free again, nothing
of any request is left, and the process has not grown by more than 50 MB over a whole file
"""

import asyncio
import ctypes
import gc
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.serve.served import Served, event_data, until

GROWTH = 50 * 2**20  # bytes
_STATM = Path("/proc/self/statm")


async def assert_unharmed(served: Served) -> None:
    """A stream after the attack is answered as ever, and then nothing is held any more."""
    assert (await served.http.get("/health")).status_code == 200
    assert await _stream(served, "abc", 30) == "abc" * 10
    await served.engine.wait_until_idle()
    await until(lambda: not served.core.has_work)
    assert served.engine.num_sequences == 0 and not served.engine.flights
    assert served.engine._processor.num_unfinished == 0
    stats = served.engine.stats
    assert stats.num_free_pages == stats.num_pages > 0
    assert stats.num_running == stats.num_waiting == 0
    gauge = "vllm:kv_cache_usage_perc{"
    lines = (await served.http.get("/metrics")).text.splitlines()
    assert [each.rsplit(" ", 1)[1] for each in lines if each.startswith(gauge)] == ["0.0"]


@asynccontextmanager
async def beside_a_neighbour(served: Served) -> AsyncIterator[None]:
    """Somebody's stream begins before the attack, runs beside it, and reads what it should."""
    length, pace = 99, served.core.step_seconds
    served.core.step_seconds = 0.001
    neighbour = asyncio.create_task(_stream(served, "xyz", length))
    await until(lambda: served.core.num_generated)
    try:
        yield
    finally:
        served.core.step_seconds = pace
        text = await neighbour
    assert text == "xyz" * 33


async def _stream(served: Served, prompt: str, length: int) -> str:
    body = {"prompt": prompt, "max_tokens": length, "stream": True, "seed": 1}
    *chunks, done = event_data((await served.complete(**body)).text)
    assert done == "[DONE]"
    return "".join(chunk["choices"][0]["text"] for chunk in chunks)


@pytest.fixture(scope="module", autouse=True)
def memory_stays_flat() -> Iterator[None]:
    """Over all attacks of a file; what was allocated for a large body has to be given back."""
    before = _resident()
    yield
    assert _resident() - before < GROWTH


def _resident() -> int:
    """Bytes of this process in memory; 0 where that cannot be read."""
    if not _STATM.exists():
        return 0
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
