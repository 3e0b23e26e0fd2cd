"""/start_profile and /stop_profile."""

import asyncio
from pathlib import Path

import pytest

from engine.config import EngineConfig, ProfilerConfig
from serve.settings import ServerSettings
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio


@pytest.fixture
def config(tmp_path: Path) -> EngineConfig:
    folder = str(tmp_path / "traces")
    profiler = ProfilerConfig(torch_profiler_dir=folder, torch_profiler_with_stack=False)
    return EngineConfig(profiler_config=profiler)


def traces(tmp_path: Path) -> list[str]:
    folders = sorted(tmp_path.glob("traces/**/plugins/profile/*"))
    return [each.name for each in folders if list(each.glob("*.xplane.pb"))]


async def test_a_trace_is_written(serve: Serve, config: EngineConfig, tmp_path: Path) -> None:
    async with serve(config=config) as served:
        begun = await served.http.post("/start_profile")  # without a body
        again = await served.post("/start_profile")
        assert (await served.complete(prompt="a", max_tokens=2)).status_code == 200
        assert not traces(tmp_path)
        ended = await served.http.post("/stop_profile")
        assert len(traces(tmp_path)) == 1
        over = await served.http.post("/stop_profile")
    assert begun.json() == {"status": "profiling"} and ended.json() == {"status": "stopped"}
    assert again.status_code == over.status_code == 400
    assert "/stop_profile" in again.text and "/start_profile" in over.text


async def test_both_peers_fields_are_taken(
    serve: Serve, config: EngineConfig, tmp_path: Path
) -> None:
    async with serve(config=config) as served:
        sglang = {"activities": ["CPU", "GPU"], "with_stack": False, "record_shapes": False}
        begun = await served.post(
            "/start_profile", output_dir="one", num_steps=1, profile_prefix="mine", **sglang
        )
        await served.complete(prompt="a", max_tokens=4)
        [name] = traces(tmp_path)
        stopped = await served.http.post("/stop_profile")
        later = await served.post("/start_profile", num_steps=1, delay_steps=100)
        await served.http.post("/stop_profile")
        assert traces(tmp_path) == [name] and name.startswith("mine-")
    assert [each.status_code for each in (begun, stopped, later)] == [200, 200, 200]


@pytest.mark.parametrize(
    "field", ["record_shapes", "merge_profiles", "profile_by_stage", "num_step", "output_dir"]
)
async def test_what_is_not_done_is_refused_by_name(
    serve: Serve, config: EngineConfig, tmp_path: Path, field: str
) -> None:
    async with serve(config=config) as served:
        value = "/elsewhere" if field == "output_dir" else True
        answer = await served.post("/start_profile", **{field: value})
        stop = await served.http.post("/stop_profile")
    assert answer.status_code == 400 and answer.json()["error"]["param"] == field
    assert stop.status_code == 400 and not traces(tmp_path)


async def test_servers_trace_nothing_unless_they_are_told_where(serve: Serve) -> None:
    async with serve() as served:
        answers = [await served.post(f"/{each}_profile") for each in ("start", "stop")]
    for answer in answers:
        assert answer.status_code == 400
        assert "--profiler-config" in answer.json()["error"]["message"]


async def test_who_reaches_a_server_without_keys_traces_nothing(
    serve: Serve, config: EngineConfig
) -> None:
    async with serve(ServerSettings(host="0.0.0.0"), config=config) as served:
        answers = [await served.post(f"/{each}_profile") for each in ("start", "stop")]
    assert [each.status_code for each in answers] == [403, 403]


async def test_it_needs_the_operators_key(serve: Serve, config: EngineConfig) -> None:
    settings = ServerSettings(api_keys=("user",), admin_api_key="admin")
    async with serve(settings, config=config) as served:
        for path in ("/start_profile", "/stop_profile"):
            for key, status in (("user", 401), ("admin", 200)):
                headers = {"authorization": f"Bearer {key}"}
                answer = await served.http.post(path, headers=headers)
                assert answer.status_code == status, path


async def test_it_is_no_work_that_is_waited_for(serve: Serve, config: EngineConfig) -> None:
    """A paused server traces, and whoever asked may leave."""
    async with serve(config=config) as served:
        await served.http.post("/pause")
        with served.engine_stopped():
            asking = asyncio.create_task(served.http.post("/start_profile"))
            await asyncio.sleep(0.01)
            asking.cancel()
        stopped = await served.http.post("/stop_profile")
        await served.http.post("/resume")
    assert stopped.status_code == 200


async def test_a_trace_is_written_at_the_end(
    serve: Serve, config: EngineConfig, tmp_path: Path
) -> None:
    async with serve(config=config) as served:
        await served.engine.end_profile()  # none was begun
        await served.http.post("/start_profile")
        assert (await served.complete(prompt="a", max_tokens=2)).status_code == 200
        served.engine.drain()
        await served.engine.end_profile()
        assert len(traces(tmp_path)) == 1
