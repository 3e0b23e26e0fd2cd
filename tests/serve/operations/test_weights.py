"""/update_weights_from_disk, and by whose weights answers say that they were written."""

import asyncio
import threading
from typing import Any

import pytest

from engine.config import EngineConfig
from serve.settings import ServerSettings
from tests.serve.operations.test_pause import held, is_paused
from tests.serve.operations.test_sleep import MAY, begin_one
from tests.serve.served import PATIENCE, Serve, Served, until

pytestmark = pytest.mark.anyio


def is_updating(served: Served) -> bool:
    [route] = [each for each in served.app.routes if each.path == "/is_sleeping"]  # type: ignore
    found: bool = route.endpoint.__self__._service.pause.is_for("updating")  # type: ignore
    return found


async def update(served: Served, **body: Any) -> Any:
    return await served.post("/update_weights_from_disk", **{"model_path": "/b", **body})


async def test_what_is_at_work_ends_first_and_what_comes_has_the_new_ones(serve: Serve) -> None:
    async with serve(config=MAY) as served:
        running = await begin_one(served, return_weight_versions=True)
        updating = asyncio.create_task(update(served, weight_version="7"))
        await until(lambda: is_updating(served))
        later = asyncio.create_task(
            served.complete(prompt="a", max_tokens=2, n=2, return_weight_versions=True)
        )
        await until(lambda: held(served) == 1)
        old, answer, new = await running, await updating, await later
        info = (await served.http.get("/model_info")).json()
        native = (await served.post("/generate", text="ab")).json()
    assert answer.json() == {
        "success": True, "message": "/b is served.", "num_paused_requests": 0
    }  # fmt: skip
    told = [each["weight_versions"] for each in old.json()["choices"] + new.json()["choices"]]
    assert told[0] == [{"start": 0, "end": 200, "version": "default"}]
    assert told[1:] == [[{"start": 0, "end": 2, "version": "7"}]] * 2
    assert info["weight_version"] == native["meta_info"]["weight_version"] == "7"


async def test_vllm_s_way_to_read_them_again(serve: Serve) -> None:
    async with serve(config=MAY) as served:
        await update(served, weight_version="7")
        asked = await served.post("/collective_rpc", method="reload_weights")
        info = (await served.http.get("/model_info")).json()
        others = [
            await served.post("/collective_rpc", **body)
            for body in ({"method": "x"}, {"method": "reload_weights", "args": [1]})
        ]
    assert asked.json() == {"results": [None]} and info["weight_version"] == "7"
    assert [each.json()["error"]["param"] for each in others] == ["method", "args"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_who_is_paused_goes_on_with_the_new_ones_and_says_so(serve: Serve, path: str) -> None:
    prompt = {"messages": [{"role": "user", "content": "Hi"}]} if "chat" in path else {}
    async with serve(config=MAY) as served:
        served.core.step_seconds = 0.001
        body = {"max_tokens": 100, "ignore_eos": True, "return_weight_versions": True}
        body |= prompt or {"prompt": "ab"}
        running = asyncio.create_task(served.post(path, **body))
        await until(lambda: served.core.num_steps > 3)
        await served.post("/pause_generation", mode="retract")
        first = await update(served)
        again = await update(served, weight_version="/b", keep_pause=True)
        assert await is_paused(served) and not running.done()
        await served.http.post("/continue_generation")
        [choice] = (await running).json()["choices"]
    assert [each.json()["num_paused_requests"] for each in (first, again)] == [1, 1]
    old, new = choice["weight_versions"]
    assert (old["start"], old["version"], new["end"], new["version"]) == (0, "default", 100, "/b")
    assert 0 < old["end"] == new["start"] < 100


async def test_all_may_end_at_once_and_a_pause_may_stay(serve: Serve) -> None:
    async with serve(config=MAY) as served:
        running = await begin_one(served)
        answer = await update(served, abort_all_requests=True, keep_pause=True)
        assert (await running).status_code == 499 and await is_paused(served)
    assert answer.json()["success"]


async def test_an_engine_that_sleeps_has_them_and_sleeps_on(serve: Serve) -> None:
    async with serve(config=MAY) as served:
        await served.http.post("/sleep?level=2")
        assert (await update(served, weight_version="8")).json()["success"]
        assert served.core.weights == "resident" and served.core.kv_cache == "discarded"
        later = asyncio.create_task(served.complete(prompt="a", max_tokens=2))
        await until(lambda: held(served) == 1)
        await served.http.post("/wake_up?tags=kv_cache")
        assert (await later).status_code == 200


async def test_nobody_waits_for_a_download(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, done = threading.Event(), threading.Event()

    def fetch(config: EngineConfig) -> EngineConfig:
        begun.set()
        assert done.wait(PATIENCE)
        return config

    monkeypatch.setattr("engine.sleeping.located", fetch)
    async with serve(config=MAY) as served:
        updating = asyncio.create_task(update(served, model_path="org/name"))
        await until(begun.is_set)
        assert (await served.complete(prompt="a", max_tokens=2)).status_code == 200
        done.set()
        assert (await updating).json()["success"]


async def test_of_two_at_once_the_last_lets_go_on_what_waits(serve: Serve) -> None:
    async with serve(config=MAY) as served:
        with served.engine_stopped():
            updates = [
                asyncio.create_task(update(served, weight_version=name, **more))
                for name, more in [("7", {}), ("8", {"model_path": "nowhere"})]
            ]
            await until(lambda: served.engine._num_changes == 2)
            updates.append(asyncio.create_task(update(served, model_path=" ", load_format="x")))
            assert (await updates.pop()).status_code == 400
            later = asyncio.create_task(served.complete(prompt="a", max_tokens=2))
            await until(lambda: held(served) == 1)
            assert is_updating(served)
        assert [(await each).status_code for each in updates] == [200, 400]
        assert (await later).status_code == 200


async def test_where_they_cannot_be_had_the_old_ones_serve_on(serve: Serve) -> None:
    async with serve(config=MAY) as served:
        answer = await update(served, model_path="nowhere", weight_version="9")
        unknown = await update(served, load_format="flattened_bucket")
        empty = await update(served, model_path="")
        told = await served.complete(prompt="a", max_tokens=2, return_weight_versions=True)
    assert answer.status_code == unknown.status_code == 400
    assert answer.json() == {
        "success": False, "message": "There is no model at nowhere.", "num_paused_requests": 0
    }  # fmt: skip
    assert "load_format is auto or dummy" in unknown.json()["message"]
    assert "model_path is empty" in empty.json()["message"]
    assert told.json()["choices"][0]["weight_versions"][0]["version"] == "default"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"flush_cache": False}, "flush_cache"), ({"is_async": True}, "is_async"),
        ({"recapture_cuda_graph": True}, "recapture_cuda_graph"), ({"files": 1}, "files"),
        ({"manifest": {"a": 1}}, "manifest"), ({"model_path": None}, "model_path"),
    ],
)  # fmt: skip
async def test_what_is_not_done_is_named(serve: Serve, body: Any, param: str) -> None:
    async with serve(config=MAY) as served:
        neutral = await update(served, is_async=False, token_step=0, flush_cache=True)
        answer = await update(served, **body)
    assert neutral.json()["success"]
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param


async def test_who_reaches_a_server_without_keys_cannot_change_its_weights(serve: Serve) -> None:
    async with serve(ServerSettings(host="0.0.0.0"), config=MAY) as served:
        assert (await update(served)).status_code == 403
        assert not served.core.changes
