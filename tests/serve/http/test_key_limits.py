"""A key that has enough at work waits; another one does not."""

import asyncio

import pytest

from engine.errors import ConfigError
from serve.settings import ServerSettings
from tests.serve.served import Serve, until

pytestmark = pytest.mark.anyio

ONE, TWO = ({"authorization": f"Bearer {key}"} for key in ("k1", "k2"))
SETTINGS = ServerSettings(
    api_keys=("k1", "k2"), admin_api_key="root", max_concurrent_requests_per_key=2
)
LONG = {"prompt": "ab", "max_tokens": 40}


async def test_the_next_request_of_a_key_is_a_429_before_the_stream(serve: Serve) -> None:
    async with serve(SETTINGS) as served:

        def post(headers: dict[str, str], path: str = "/v1/completions", **more: object):
            return served.http.post(path, json={**LONG, **more}, headers=headers)

        with served.engine_stopped():
            running = [asyncio.create_task(post(ONE, stream=stream)) for stream in (False, True)]
            await until(lambda: served.engine.num_sequences == 2)
            refused = await post(ONE, stream=True)
            messages = await post(ONE, "/v1/messages")
            waiting = asyncio.create_task(post(TWO))
            await until(lambda: served.engine.num_sequences == 3)
            readable = await served.http.get("/v1/models", headers=ONE)
            operator = await served.http.get(
                "/admin/state", headers={"authorization": "Bearer root"}
            )
        neighbour, *done = await asyncio.gather(waiting, *running)
        after = await post(ONE)
        metrics = (await served.http.get("/metrics")).text
    assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
    assert refused.headers["content-type"] == "application/json"
    error = refused.json()["error"]
    assert error["type"] == "rate_limit_error" and "2 requests" in error["message"]
    assert messages.status_code == 429 and messages.json()["type"] == "error"
    others = (neighbour, readable, operator, after, *done)
    assert {each.status_code for each in others} == {200}
    assert 'reason="key_limit"} 2.0' in metrics


async def test_a_response_in_the_background_counts_until_it_ends(serve: Serve) -> None:
    body = {"input": "ab", "max_output_tokens": 60, "background": True}
    async with serve(SETTINGS) as served:
        path = "/v1/responses"
        with served.engine_stopped():
            made = [await served.http.post(path, json=body, headers=ONE) for _ in range(2)]
            refused = await served.http.post(path, json=body, headers=ONE)
            one = f"{path}/{made[0].json()['id']}"
            cancelled = await served.http.post(f"{one}/cancel", headers=ONE)
            again = await served.http.post(path, json=body, headers=ONE)
            for each in (made[1], again):
                await served.http.delete(f"{path}/{each.json()['id']}", headers=ONE)
    assert [each.status_code for each in (*made, refused, cancelled, again)] == [
        200, 200, 429, 200, 200,
    ]  # fmt: skip


async def test_one_that_is_streamed_counts_once_and_without_its_client(serve: Serve) -> None:
    body = {"input": "ab", "max_output_tokens": 60, "background": True, "stream": True}
    path = "/v1/responses"
    async with serve(SETTINGS) as served:

        async def statuses(count: int) -> list[int]:
            posts = [served.http.post(path, json=body, headers=ONE) for _ in range(count)]
            return sorted([each.status_code for each in await asyncio.gather(*posts)])

        assert await statuses(3) == [200, 200, 429]
        served.core.step_seconds = 0.01
        left = asyncio.create_task(statuses(2))
        await until(lambda: len(served.core.running) == 2)
        left.cancel()  # the clients go, the responses do not
        with served.engine_stopped():
            assert await statuses(1) == [429]
        await served.engine.wait_until_idle()
        assert await statuses(1) == [200]


def test_it_needs_keys() -> None:
    with pytest.raises(ConfigError, match="needs --api-key"):
        ServerSettings(max_concurrent_requests_per_key=1)
