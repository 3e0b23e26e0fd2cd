"""What load balancers, orchestrators and people ask a server."""

import asyncio

import pytest

from engine.sampling_params import SamplingParams
from serve import engine_client
from serve.engine_client import Prompt
from serve.settings import ServerSettings
from serve.streams import collect
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio
READINESS = ("/health", "/readyz", "/ping")


async def test_a_server_at_work_says_so(serve: Serve) -> None:
    async with serve() as served:
        for path in (*READINESS, "/livez"):
            assert (await served.http.get(path)).status_code == 200
        served.core.step_seconds = 0.05
        running = asyncio.create_task(served.chat("Hi", n=3, max_tokens=100))
        await asyncio.sleep(0.2)
        assert (await served.http.get("/load")).json() == {"server_load": 3}
        running.cancel()
        await asyncio.sleep(0.2)
        assert (await served.http.get("/load")).json() == {"server_load": 0}


async def test_an_engine_that_says_nothing_is_not_ready(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_client, "HUNG_SECONDS", 0.1)
    async with serve() as served:
        await asyncio.sleep(0.3)
        assert (await served.http.get("/readyz")).status_code == 200  # idle is not hung
        served.core.step_seconds = 0.6
        running = asyncio.create_task(served.chat("Hi", max_tokens=1))
        await asyncio.sleep(0.3)
        hung = await served.http.get("/readyz")
        alive = await served.http.get("/livez")
        await running
        again = await served.http.get("/readyz")
    assert (hung.status_code, hung.json()) == (503, {"status": "hung"})
    assert (alive.status_code, again.status_code) == (200, 200)


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
    monkeypatch.setattr(engine_client, "HUNG_SECONDS", 0.1)
    prompt = Prompt("Hi", [1, 2, 3], SamplingParams(max_tokens=1))
    async with serve() as served:
        with served.engine.generate("slow", [prompt]) as stream:
            await collect(stream)
            await asyncio.sleep(0.2)
            finished = await served.http.get("/readyz")
            served.core.step_seconds = 0.05
            next_one = asyncio.create_task(served.chat("Hi", max_tokens=1))
            await asyncio.sleep(0.02)
            begun = await served.http.get("/readyz")
            await next_one
    assert (finished.status_code, begun.status_code) == (200, 200)
