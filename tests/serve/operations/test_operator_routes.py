"""/reset_prefix_cache, /flush_cache, /abort_request and /health_generate."""

import asyncio

import pytest

from engine.config import EngineConfig
from serve.operations import health_generate
from serve.operations.operator_routes import OPERATOR_PATHS, RESETS
from serve.settings import ServerSettings
from tests.fake_engine import ENCODER
from tests.serve.served import Serve, until

pytestmark = pytest.mark.anyio


async def test_the_cache_is_forgotten(serve: Serve) -> None:
    async with serve() as served:
        for number, path in enumerate(RESETS, 1):
            assert (await served.http.post(path)).status_code == 200
            await until(lambda count=number: served.core.num_resets == count)
        fine = await served.http.post(f"{RESETS[0]}?reset_running_requests=false")
        other = await served.http.post(f"{RESETS[0]}?reset_running_requests=true")
    assert fine.status_code == 200
    assert other.json()["error"]["param"] == "reset_running_requests"


async def test_they_need_the_operators_key(serve: Serve) -> None:
    settings = ServerSettings(api_keys=("user",), admin_api_key="admin")
    async with serve(settings) as served:
        for path in OPERATOR_PATHS:
            for key, refused in (("user", True), ("admin", False)):
                answer = await served.http.post(
                    path, headers={"authorization": f"Bearer {key}"}, json={"rid": "none"}
                )
                assert (answer.status_code == 401) == refused, path


async def test_responses_end_by_the_id_that_they_show(serve: Serve) -> None:
    """Two of the same id end together; a third goes on, until all are ended."""
    body = {"prompt": "ab", "max_tokens": 900}
    async with serve(config=EngineConfig(max_model_len=1024)) as served:
        served.core.step_seconds = 0.005
        first, second, third = [
            asyncio.create_task(served.complete(**body, **more))
            for more in ({"rid": "mine"}, {"rid": "mine"}, {})
        ]
        await until(lambda: len(served.core.running) == 3)
        ended = await served.post("/abort_request", rid="mine")
        unknown = await served.post("/abort_request", rid="theirs")
        said = [await first, await second]
        assert not third.done()
        rest = await served.post("/abort_request", abort_all=True)
        said.append(await third)
        neither = await served.post("/abort_request")
        await until(lambda: not served.core.has_work)
    assert [each.json()["aborted"] for each in (ended, unknown, rest)] == [2, 0, 1]
    assert neither.status_code == 400
    for each in said:  # no status that a client or a fallback tries again
        error = each.json()["error"]
        assert (each.status_code, error["type"]) == (499, "aborted_error")
        assert "operator ended" in error["message"]


@pytest.mark.parametrize("model", ["plain", ENCODER])
async def test_health_is_a_token(serve: Serve, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(config=EngineConfig(model=model)) as served:
        healthy = await served.http.get("/health_generate")
        [request] = served.core.added
        with served.engine_stopped():
            monkeypatch.setattr(health_generate, "PATIENCE_SECONDS", 0.01)
            slow = await served.http.get("/health_generate")
        await until(lambda: not served.core.has_work)
    assert healthy.status_code == 200 and request.params.max_tokens == 1
    assert bool(request.encoder_token_ids) == (model == ENCODER)
    assert slow.status_code == 503 and slow.headers["retry-after"] == "1"
