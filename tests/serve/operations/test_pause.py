"""/pause, /resume, /is_paused, and SGLang's names of the same."""

import asyncio
from typing import Any

import pytest

from engine.config import EngineConfig
from serve.audio.form import AUDIO_PATHS
from serve.operations import pause as pauses
from serve.paths import OPERATIONS
from serve.settings import ServerSettings
from tests.serve.served import Serve, Served, until

pytestmark = pytest.mark.anyio
LONG = EngineConfig(max_model_len=1024)
BODY = {"prompt": "ab", "max_tokens": 900}


def held(served: Served) -> int:
    [route] = [each for each in served.app.routes if each.path == "/is_paused"]  # type: ignore
    count: int = route.endpoint.__self__._service.pause._held  # type: ignore[attr-defined]
    return count


async def is_paused(served: Served) -> Any:
    return (await served.http.get("/is_paused")).json()["is_paused"]


async def test_what_is_at_work_ends_and_what_comes_waits(serve: Serve) -> None:
    async with serve(config=LONG) as served:
        served.core.step_seconds = 0.005
        first = asyncio.create_task(served.complete(**BODY))
        await until(lambda: served.core.running)
        assert not await is_paused(served)
        paused = await served.http.post("/pause")
        ended = await first
        assert await is_paused(served)
        await until(lambda: served.core.num_resets == 1)
        later = [
            asyncio.create_task(served.complete(prompt="a", max_tokens=2)),
            asyncio.create_task(served.chat(max_tokens=2)),
        ]
        await until(lambda: held(served) == 2)
        counted = await served.post("/tokenize", prompt="ab")
        assert len(served.core.added) == 1 and (await served.http.get("/health")).is_success
        resumed = await served.http.post("/resume")
        answers = [await each for each in later]
        assert held(served) == 0 and not await is_paused(served)
    assert paused.json() == {"status": "paused"} and resumed.json() == {"status": "resumed"}
    assert ended.status_code == 499 and counted.status_code == 200
    assert [each.status_code for each in answers] == [200, 200]


@pytest.mark.parametrize("query", ["mode=wait", "wait_for_inflight_requests=true"])
async def test_what_is_at_work_may_be_waited_for(serve: Serve, query: str) -> None:
    async with serve() as served:
        with served.engine_stopped():
            first = asyncio.create_task(served.complete(prompt="a", max_tokens=3))
            await until(lambda: served.engine.num_sequences)
            paused = asyncio.create_task(served.http.post(f"/pause?{query}&clear_cache=false"))
            for _ in range(50):
                await asyncio.sleep(0)
            assert await is_paused(served) and not paused.done()
        assert (await first).status_code == 200 and (await paused).status_code == 200
        assert served.core.num_resets == 0


KEEPING: list[tuple[str, dict[str, str], int, int]] = [
    ("/pause?mode=keep", {}, 1, 1),
    ("/pause?mode=keep&clear_cache=false", {}, 0, 0),
    ("/pause_generation", {"mode": "in_place"}, 0, 0),
    ("/pause_generation", {"mode": "retract"}, 1, 0),
]


@pytest.mark.parametrize(("path", "body", "retracted", "resets"), KEEPING)
async def test_what_is_at_work_may_stay_where_it_is(
    serve: Serve, path: str, body: dict[str, str], retracted: int, resets: int
) -> None:
    """And nobody takes the engine for hung meanwhile."""
    async with serve(config=LONG) as served:
        served.core.step_seconds = 0.001
        running = asyncio.create_task(served.complete(prompt="ab", max_tokens=300))
        await until(lambda: served.core.num_steps > 3)
        assert (await served.post(path, **body)).status_code == 200
        await until(lambda: served.core.num_resets == resets)
        steps = served.core.num_steps
        later = asyncio.create_task(served.complete(prompt="a", max_tokens=2))
        await until(lambda: held(served) == 1)
        for _ in range(3):
            served.engine.ask_for_a_word()
            await until(lambda: not served.engine.silent_seconds)
        assert served.core.num_steps == steps < 300 and served.core.num_retracted == retracted
        assert (await served.http.get("/health")).is_success and not running.done()
        await served.http.post("/resume")
        answers = [await running, await later]
    assert [each.json()["usage"]["completion_tokens"] for each in answers] == [300, 2]
    assert answers[0].json()["choices"][0]["text"] == "ab" * 150


async def test_who_leaves_a_frozen_server_is_gone_and_another_pause_may_follow(
    serve: Serve,
) -> None:
    async with serve(config=LONG) as served:
        served.core.step_seconds = 0.001
        tasks = [asyncio.create_task(served.complete(**BODY)) for _ in range(2)]
        await until(lambda: len(served.core.running) == 2)
        await served.http.post("/pause?mode=keep&clear_cache=false")
        tasks[0].cancel()
        await until(lambda: len(served.core.running) == 1)
        waited = await served.http.post("/pause?mode=wait")  # so it ends
        assert waited.status_code == 200
        assert (await tasks[1]).json()["usage"]["completion_tokens"] == 900
        await served.http.post("/pause?mode=keep")
        ended = await served.http.post("/pause")
        await served.http.post("/resume")
        assert ended.status_code == 200 and (await served.complete(prompt="a")).status_code == 200


async def test_a_frozen_server_that_is_to_leave_ends_what_it_began(serve: Serve) -> None:
    async with serve(config=LONG) as served:
        served.core.step_seconds = 0.001
        running = asyncio.create_task(served.complete(prompt="ab", max_tokens=100))
        await until(lambda: served.core.num_steps > 3)
        await served.post("/pause_generation", mode="in_place")
        served.engine.drain()
        await served.engine.wait_until_idle()
        assert (await running).json()["usage"]["completion_tokens"] == 100


async def test_sglang_has_other_names(serve: Serve) -> None:
    async with serve() as served:
        paused = [await served.post("/pause_generation") for _ in range(2)]
        paused.append(await served.post("/pause_generation", mode="abort"))
        assert await is_paused(served) and served.core.num_resets == 0
        wrong = await served.post("/pause_generation", mode="keep")
        on = await served.post("/continue_generation")
        assert not await is_paused(served)
    assert {each.json()["status"] for each in [*paused, on]} == {"ok"}
    assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "mode"


async def test_who_waits_does_not_do_so_without_an_engine_or_in_any_number(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pauses, "MAX_HELD", 1)
    monkeypatch.setattr(pauses, "_LOOK_SECONDS", 0.01)
    async with serve() as served:
        await served.http.post("/pause")
        waiting = asyncio.create_task(served.complete(prompt="a"))
        await until(lambda: held(served) == 1)
        over = await served.complete(prompt="a")
        served.engine.drain()
        told = await waiting
    assert over.status_code == 503 and over.headers["retry-after"]
    assert told.status_code == 503 and "shutting down" in told.text


async def test_a_client_that_leaves_waits_no_longer(serve: Serve) -> None:
    async with serve() as served:
        await served.http.post("/pause")
        waiting = asyncio.create_task(served.complete(prompt="a"))
        await until(lambda: held(served) == 1)
        waiting.cancel()
        await until(lambda: held(served) == 0)
        await served.http.post("/resume")
        assert not served.core.added


async def test_who_reaches_a_server_without_keys_cannot_pause_it(serve: Serve) -> None:
    async with serve(ServerSettings(host="0.0.0.0")) as served:
        for path in ("/pause", "/pause_generation"):
            assert (await served.post(path)).status_code == 403
        assert not await is_paused(served)


@pytest.mark.parametrize(
    ("query", "param"), [("mode=in_place", "mode"), ("clear_cache=no", "clear_cache"), ("a=1", "a")]
)
async def test_wrong_parameters_are_named(serve: Serve, query: str, param: str) -> None:
    async with serve() as served:
        answer = await served.http.post(f"/pause?{query}")
        assert not await is_paused(served)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param


async def test_several_responses_end_at_once(serve: Serve) -> None:
    async with serve(config=LONG) as served:
        served.core.step_seconds = 0.005
        tasks = [asyncio.create_task(served.complete(**BODY, rid=rid)) for rid in "abc"]
        await until(lambda: len(served.core.running) == 3)
        two = await served.post("/abort_requests", request_ids=["a", "c", "z"])
        assert [(await tasks[i]).status_code for i in (0, 2)] == [499, 499]
        rest = await served.post("/abort_requests")
        await tasks[1]
    assert two.json() == {"status": "aborted", "aborted": 2} and rest.json()["aborted"] == 1


NOTHING_COMPUTED = {
    "/tokenize", "/v1/tokenize", "/detokenize", "/v1/detokenize", "/api/show", "/open_session",
    "/close_session", "/parse_function_call", "/separate_reasoning", "/v1/messages/count_tokens",
    *(f"{path}/render" for path in ("/cohere/v2/chat", "/v1/responses", "/v1/messages")),
    *(f"/v1/{kind}/{end}" for kind in ("chat/completions", "completions")
      for end in ("render", "derender")),
}  # fmt: skip


async def test_every_route_that_computes_waits(serve: Serve) -> None:
    async with serve() as served:
        routes = {each.path: each for each in served.app.routes}  # type: ignore[attr-defined]
        idle = {
            each.path for each in OPERATIONS
            if each.path not in AUDIO_PATHS and not routes[each.path].app.computes
        }  # fmt: skip
    assert idle == NOTHING_COMPUTED
