"""/sleep, /wake_up and /is_sleeping, and SGLang's names of the same."""

import asyncio
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.messages import Release, Restore
from serve.settings import ServerSettings
from tests.serve.operations.test_pause import held, is_paused
from tests.serve.served import PATIENCE, Serve, Served, until

pytestmark = pytest.mark.anyio
MAY = EngineConfig(max_model_len=1024, enable_sleep_mode=True)


async def is_sleeping(served: Served) -> Any:
    return (await served.http.get("/is_sleeping")).json()["is_sleeping"]


async def state_of(served: Served) -> dict[str, float]:
    lines = (await served.http.get("/metrics")).text.splitlines()
    shown = [line for line in lines if line.startswith("vllm:engine_sleep_state{")]
    return {line.split('sleep_state="')[1].split('"')[0]: float(line.split()[-1]) for line in shown}


async def begin_one(served: Served, **body: Any) -> asyncio.Task[Any]:
    served.core.step_seconds = 0.001
    running = asyncio.create_task(served.complete(prompt="ab", max_tokens=200, **body))
    await until(lambda: served.core.num_steps > 3)
    return running


async def test_what_is_at_work_ends_and_what_comes_waits_until_all_is_awake(serve: Serve) -> None:
    async with serve(config=MAY) as served:
        assert await state_of(served) == {"awake": 1, "weights_offloaded": 0, "discard_all": 0}
        first = await begin_one(served)
        slept = await served.http.post("/sleep")
        assert (await first).status_code == 499
        assert await is_sleeping(served) and await is_paused(served)
        assert await state_of(served) == {"awake": 0, "weights_offloaded": 1, "discard_all": 0}
        assert (await served.http.get("/health")).is_success
        later = asyncio.create_task(served.complete(prompt="a", max_tokens=2))
        await until(lambda: held(served) == 1)
        await served.http.post("/resume")  # the pause alone
        assert await is_sleeping(served) and not await is_paused(served)
        part = await served.http.post("/wake_up?tags=weights")
        early = await served.http.post("/wake_up?tags=scheduling")
        assert held(served) == 1 and await is_sleeping(served)
        awake = await served.http.post("/wake_up?tags=kv_cache&tags=scheduling")
        assert (await later).status_code == 200 and not await is_sleeping(served)
        assert await state_of(served) == {"awake": 1, "weights_offloaded": 0, "discard_all": 0}
        counted = (await served.http.get("/metrics")).text
    operation = "vllm:sleep_mode_operation"
    for name, times in (("sleep", 1), ("wake", 3)):
        assert f'{operation}_duration_seconds_count{{operation="{name}"}} {times}.0' in counted
        assert f'{operation}s_in_flight{{operation="{name}"}} 0.0' in counted
    assert [each.json()["is_sleeping"] for each in (slept, part, awake)] == [True, True, False]
    assert early.status_code == 400 and early.json()["error"]["param"] == "tags"
    kinds = [(each.weights, each.kv_cache) for each in served.core.changes]
    assert kinds == [
        ("offloaded", "discarded"), (True, False), (False, False), (False, True),
    ]  # fmt: skip


@pytest.mark.parametrize("level", [0, 1, 2])
async def test_what_is_at_work_may_go_on_afterwards(serve: Serve, level: int) -> None:
    """And nobody takes the engine for hung meanwhile."""
    async with serve(config=MAY) as served:
        running = await begin_one(served)
        await served.http.post(f"/sleep?level={level}&mode=keep")
        steps, kept = served.core.num_steps, bool(served.core.running)
        served.engine.ask_for_a_word()
        await until(lambda: not served.engine.silent_seconds)
        assert await is_sleeping(served) and kept == (level == 0)
        stuck = await served.http.post("/sleep?mode=wait") if level else None
        assert (await state_of(served))["discard_all"] == (level == 2)
        assert served.core.num_steps == steps < 200 and not running.done()
        await served.http.post("/wake_up")
        answer = await running
    assert answer.json()["choices"][0]["text"] == "ab" * 100
    assert stuck is None or stuck.json()["error"]["param"] == "mode"


async def test_what_is_at_work_may_be_waited_for(serve: Serve) -> None:
    async with serve(config=MAY) as served:
        running = await begin_one(served)
        assert (await served.http.post("/sleep?level=2&mode=wait")).status_code == 200
        assert running.done() and (await running).status_code == 200
        assert served.core.weights == "discarded"


async def test_the_cache_alone_may_go_of_a_server_that_is_paused(serve: Serve) -> None:
    async with serve(config=MAY) as served:
        running = await begin_one(served)
        busy = await served.http.post("/release_kv_cache_memory")
        await served.http.post("/sleep?level=0&mode=keep")
        assert (await served.http.post("/release_kv_cache_memory")).status_code == 200
        assert (served.core.weights, served.core.kv_cache) == ("resident", "discarded")
        await served.http.post("/wake_up?tags=kv_cache")
        assert (await running).json()["usage"]["completion_tokens"] == 200
    assert busy.status_code == 400 and "1 sequences are at work" in busy.text


async def test_sglang_has_other_names_and_a_pause_of_its_own(serve: Serve) -> None:
    async with serve(config=MAY) as served:
        running = await begin_one(served)
        assert (await served.post("/release_memory_occupation")).status_code == 400
        await served.post("/pause_generation", mode="retract")
        released = await served.post("/release_memory_occupation", tags=["kv_cache"])
        released = await served.http.post("/release_memory_occupation")  # all, without a body
        assert await is_sleeping(served)
        resumed = await served.post("/resume_memory_occupation", tags=["weights"])
        assert served.core.kv_cache == "discarded"
        wrong = await served.post("/resume_memory_occupation", tags=["cuda_graph"])
        await served.post("/resume_memory_occupation")
        assert await is_paused(served) and not running.done()
        await served.http.post("/continue_generation")
        assert (await running).status_code == 200 and not await is_sleeping(served)
    assert [type(each) for each in served.core.changes] == [Release, Release, Restore, Restore]
    assert released.json()["status"] == resumed.json()["status"] == "ok"
    assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "tags"


async def test_a_server_that_is_to_leave_does_not_wait_for_who_sleeps(serve: Serve) -> None:
    async with serve(config=MAY) as served:
        running = await begin_one(served)
        await served.http.post("/sleep?mode=keep")
        served.engine.drain()
        await served.engine.wait_until_idle()
        assert "shutting down" in (await running).text


async def test_nor_for_who_is_falling_asleep(serve: Serve) -> None:
    async with serve(config=MAY) as served:
        running = await begin_one(served)
        served.core.step_seconds = 0.05
        falling = asyncio.create_task(served.http.post("/sleep?mode=keep"))
        await until(lambda: served.engine._num_changes)
        assert served.engine.resident
        served.engine.drain()
        async with asyncio.timeout(PATIENCE):
            await served.engine.wait_until_idle()
        assert "shutting down" in (await running).text and (await falling).status_code == 200


@pytest.mark.parametrize("path", ["/sleep", "/sleep?mode=keep", "/sleep?level=0&mode=keep"])
async def test_a_sleep_that_fails_holds_nobody(serve: Serve, path: str) -> None:
    async with serve(config=MAY) as served:
        served.engine._state = "loading"
        assert (await served.http.post(path)).status_code == 503
        served.engine._state = "ready"
        assert not await is_sleeping(served) and not await is_paused(served)
        await served.http.post("/pause?mode=keep")
        served.engine._state = "loading"
        assert (await served.http.post(path)).status_code == 503
        served.engine._state = "ready"
        assert await is_paused(served)  # as before


async def test_memory_that_is_let_go_of_while_the_caller_leaves_is_known_to_be_gone(
    serve: Serve,
) -> None:
    async with serve(config=MAY) as served:
        with served.engine_stopped():
            caller = asyncio.create_task(served.post("/release_memory_occupation"))
            await until(lambda: served.engine._num_changes)
            caller.cancel()
            await asyncio.gather(caller, return_exceptions=True)
            assert await is_sleeping(served)
        await until(lambda: not served.engine.resident)
        assert await is_sleeping(served)
        later = asyncio.create_task(served.complete(prompt="a", max_tokens=2))
        await until(lambda: held(served) == 1)
        await served.http.post("/wake_up")
        assert (await later).status_code == 200


@pytest.mark.parametrize(("path", "status"), [("/sleep", "asleep"), ("/pause", "paused")])
async def test_no_token_is_looked_for_meanwhile(serve: Serve, path: str, status: str) -> None:
    async with serve(config=MAY) as served:
        await served.http.post(path)
        answer = await served.http.get("/health_generate")
        assert not served.core.added
        await served.http.post("/wake_up")
        assert (await served.http.get("/health_generate")).json() == {"status": "ready"}
    assert answer.status_code == 503 and answer.json() == {"status": status}


async def test_who_reaches_a_server_without_keys_cannot_have_it_sleep(serve: Serve) -> None:
    paths = (
        "/sleep", "/wake_up", "/release_kv_cache_memory", "/release_memory_occupation",
        "/resume_memory_occupation",
    )  # fmt: skip
    async with serve(ServerSettings(host="0.0.0.0"), config=MAY) as served:
        for path in paths:
            assert (await served.post(path)).status_code == 403
        assert not await is_sleeping(served)
    async with serve(ServerSettings(api_keys=["a"], admin_api_key="b"), config=MAY) as served:
        for path in paths:
            asked = await served.http.post(path, headers={"authorization": "Bearer a"})
            assert asked.status_code in (401, 403)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("sleep?level=3", "level"), ("sleep?level=x", "level"), ("sleep?mode=retract", "mode"),
        ("sleep?tags=weights", "tags"), ("wake_up?level=1", "level"), ("wake_up?tags=a", "tags"),
    ],
)  # fmt: skip
async def test_wrong_parameters_are_named(serve: Serve, query: str, param: str) -> None:
    async with serve(config=MAY) as served:
        answer = await served.http.post(f"/{query}")
        assert not await is_sleeping(served)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param


async def test_a_server_that_was_not_started_for_it_keeps_its_memory(serve: Serve) -> None:
    async with serve() as served:
        for path in ("/sleep", "/release_kv_cache_memory", "/release_memory_occupation"):
            answer = await served.post(path)
            assert answer.status_code == 400 and "--enable-sleep-mode" in answer.text
        assert not await is_sleeping(served)
        assert (await served.http.post("/sleep?level=0")).status_code == 200
        assert await is_sleeping(served)
        assert (await served.http.post("/wake_up")).status_code == 200
        assert (await served.post("/resume_memory_occupation")).status_code == 200
        assert not await is_sleeping(served)
        assert not served.core.changes  # an engine that gives vectors knows none


async def test_a_sleep_that_a_waking_overtakes_still_holds_what_comes(serve: Serve) -> None:
    async with serve(config=MAY) as served:
        running = await begin_one(served)
        waiting = asyncio.create_task(served.http.post("/sleep?mode=wait"))
        while not await is_sleeping(served):
            await asyncio.sleep(0)
        await served.http.post("/wake_up")
        assert (await running).status_code == 200
        assert (await waiting).json()["is_sleeping"]
        later = asyncio.create_task(served.complete(prompt="a", max_tokens=2))
        await until(lambda: held(served) == 1)
        await served.http.post("/wake_up")
        assert (await later).status_code == 200


async def test_a_release_of_nothing_holds_nobody(serve: Serve) -> None:
    async with serve(config=MAY) as served:
        await served.http.post("/release_memory_occupation", json={"tags": []})
        assert not await is_sleeping(served)
