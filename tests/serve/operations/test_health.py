"""What load balancers, orchestrators and people ask a server."""

import asyncio

import pytest

from engine.config import EngineConfig
from engine.output_processor import OutputProcessor
from engine.sampling.params import SamplingParams
from serve import engine_client
from serve.engine_client import HUNG_SECONDS, EngineClient, Prompt
from serve.generation.streams import collect
from serve.operations.metrics import Metrics
from serve.settings import ServerSettings
from tests.fake_engine import FakeCore
from tests.serve.served import PATIENCE, InProcessEngine, Serve, until

pytestmark = pytest.mark.anyio
READINESS = ("/health", "/readyz", "/ping")


async def test_a_server_at_work_says_so(serve: Serve) -> None:
    async with serve() as served:
        for path in (*READINESS, "/livez"):
            assert (await served.http.get(path)).status_code == 200
        with served.engine_stopped():
            running = asyncio.create_task(served.chat("Hi", n=3, max_tokens=100))
            await until(lambda: served.engine.num_sequences)
            assert (await served.http.get("/load")).json() == {"server_load": 3}
            running.cancel()
            await until(running.done)
            assert (await served.http.get("/load")).json() == {"server_load": 0}


class Clock:
    """What the engine's client takes for the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(engine_client, "time", self)

    def monotonic(self) -> float:
        return self.now


async def test_an_engine_that_says_nothing_is_not_ready(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    async with serve() as served:
        clock.now += HUNG_SECONDS + 1
        assert (await served.http.get("/readyz")).status_code == 200  # idle is not hung
        with served.engine_stopped():
            running = asyncio.create_task(served.chat("Hi", max_tokens=1))
            await until(lambda: served.engine.num_sequences)
            begun = await served.http.get("/readyz")
            clock.now += HUNG_SECONDS + 1
            served.engine.patience *= 2  # a step that computes on a CPU
            computing = await served.http.get("/readyz")
            served.engine.patience /= 2
            hung = await served.http.get("/readyz")
            refused = await asyncio.wait_for(served.chat("Hi", max_tokens=1), PATIENCE)
            alive = await served.http.get("/livez")
        await running
        again = await served.http.get("/readyz")
    assert (hung.status_code, hung.json()) == (503, {"status": "hung"})
    assert refused.status_code == 503 and refused.headers["retry-after"]
    assert [each.status_code for each in (begun, computing, alive, again)] == [200] * 4


async def test_an_engine_that_hangs_is_one_too_when_its_clients_have_left(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    async with serve() as served:
        with served.engine_stopped():
            for _ in range(3):  # each leaves before the engine would be taken for hung
                running = asyncio.create_task(served.chat("Hi", max_tokens=1))
                await until(lambda: served.engine.num_sequences)
                clock.now += HUNG_SECONDS / 2
                running.cancel()
                await until(running.done)
            hung = await served.http.get("/readyz")
        await until(lambda: served.engine.state == "ready")
        clock.now += HUNG_SECONDS + 1
        again = await served.http.get("/readyz")
    assert (hung.status_code, again.status_code) == (503, 200)


async def test_a_server_that_is_to_leave_while_it_loads_takes_no_requests() -> None:
    client = EngineClient(OutputProcessor(None), Metrics("tiny"))
    client.drain()
    await client.connect(InProcessEngine(FakeCore(EngineConfig())))
    assert client.state == "draining"


async def test_server_info_keeps_secrets(serve: Serve) -> None:
    async with serve(ServerSettings(api_keys=("s3cret",))) as served:
        refused = await served.http.get("/server_info")
        told = await served.http.get("/server_info", headers={"x-api-key": "s3cret"})
        open_to_all = [await served.http.get(path) for path in (*READINESS, "/livez")]
    assert refused.status_code == 401
    assert all(response.status_code == 200 for response in open_to_all)
    assert told.json()["model"]["vocab_size"] == 300 and "s3cret" not in told.text


async def test_a_client_that_reads_slowly_is_no_work_of_the_engine(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    prompt = Prompt("Hi", [1, 2, 3], SamplingParams(max_tokens=1))
    async with serve() as served:
        with served.engine.generate("slow", [prompt]) as stream:
            await collect(stream)
            clock.now += HUNG_SECONDS + 1
            finished = await served.http.get("/readyz")
            with served.engine_stopped():
                next_one = asyncio.create_task(served.chat("Hi", max_tokens=1))
                await until(lambda: served.engine.num_sequences)
                begun = await served.http.get("/readyz")
            await next_one
    assert (finished.status_code, begun.status_code) == (200, 200)
