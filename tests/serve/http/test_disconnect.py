"""A client that leaves frees its rows at once, whatever its request was doing."""

import asyncio
import json
from itertools import chain
from typing import Any

import pytest
from starlette.types import Message

from engine.config import EngineConfig
from tests.serve.served import PATIENCE, Serve, Served, event_data

pytestmark = pytest.mark.anyio


class Connection:
    """One request over ASGI, whose client can leave and can stop reading."""

    def __init__(self, served: Served, path: str, body: dict[str, Any]) -> None:
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self._incoming.put_nowait({"type": "http.request", "body": json.dumps(body).encode()})
        self.sent: list[Message] = []
        self.reading = asyncio.Event()
        self.reading.set()
        headers = [(b"content-type", b"application/json")]
        scope = {
            "type": "http", "method": "POST", "path": path, "headers": headers,
            "query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1",
        }  # fmt: skip
        self.task = asyncio.create_task(served.app(scope, self._incoming.get, self._send))

    async def _send(self, message: Message) -> None:
        await self.reading.wait()
        self.sent.append(message)

    def leave(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})


async def until(condition: Any) -> None:
    """Looks in each turn of the loop, so that no step is missed."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n", [1, 4])
async def test_a_running_request_is_aborted_within_a_step(
    serve: Serve, stream: bool, n: int
) -> None:
    async with serve() as served:
        served.core.step_seconds = 0.001
        body = {"prompt": "ab", "max_tokens": 100, "stream": stream, "n": n}
        connection = Connection(served, "/v1/completions", body)
        await until(lambda: served.core.num_steps == 3)
        connection.leave()
        await connection.task
        steps = served.core.num_steps
        await until(lambda: not served.core.has_work)
        assert served.core.num_steps <= steps + 1
        assert len(served.core.aborted) == n
        await served.engine.wait_until_idle()


async def test_a_waiting_request_never_runs(serve: Serve) -> None:
    async with serve(config=EngineConfig(max_num_seqs=1)) as served:
        served.core.step_seconds = 0.001
        first = asyncio.create_task(served.complete(prompt="ab", max_tokens=50))
        await until(lambda: served.core.running)
        queued = Connection(served, "/v1/completions", {"prompt": "zz", "stream": True})
        await until(lambda: served.core.waiting)
        queued.leave()
        await queued.task
        await until(lambda: not served.core.waiting)
        assert queued.sent == []
        assert (await first).status_code == 200
    assert served.core.num_generated == 50


async def test_a_client_that_leaves_while_it_sends_is_forgotten(serve: Serve) -> None:
    async with serve() as served:
        connection = Connection(served, "/v1/completions", {})
        connection._incoming.get_nowait()
        connection._incoming.put_nowait(
            {"type": "http.request", "body": b'{"prompt":', "more_body": True}
        )
        connection.leave()
        await connection.task
    assert connection.sent == [] and served.core.added == []


async def test_what_a_slow_reader_misses_is_merged(serve: Serve) -> None:
    async with serve() as served:
        connection = Connection(
            served, "/v1/completions", {"prompt": "ab", "max_tokens": 40, "stream": True}
        )
        connection.reading.clear()
        await until(lambda: served.core.num_generated == 40 and not served.core.has_work)
        connection.reading.set()
        await connection.task
    text = b"".join(message.get("body", b"") for message in connection.sent).decode()
    events = [json.loads(each[6:]) for each in text.split("\n\n")[:-2]]
    assert "".join(event["choices"][0]["text"] for event in events) == "ab" * 20
    assert len(events) <= 3


@pytest.mark.parametrize("at_once", [1, 4])
async def test_reports_that_pile_up_are_one_chunk(serve: Serve, at_once: int) -> None:
    asked = {
        "prompt": "ab", "max_tokens": 12, "stream": True, "logprobs": 1, "return_token_ids": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }  # fmt: skip
    async with serve() as served:
        served.engine._outbox.link.steps_at_once = at_once  # type: ignore[union-attr]
        *events, total, _ = event_data((await served.complete(**asked)).text)
    assert len(events) == 12 / at_once
    choices = [event["choices"][0] for event in events]
    assert "".join(choice["text"] for choice in choices) == "ab" * 6
    assert [*chain(*(choice["token_ids"] for choice in choices))] == [64, 65] * 6
    scored = [choice["logprobs"] for choice in choices]
    assert [len(each["token_logprobs"]) for each in scored] == [at_once] * len(events)
    assert [*chain(*(each["text_offset"] for each in scored))] == list(range(12))
    counts = [event["usage"]["completion_tokens"] for event in events]
    assert counts == list(range(at_once, 13, at_once))
    assert total["usage"]["completion_tokens"] == 12
    assert [choice["finish_reason"] for choice in choices[-2:]] == [None, "length"]


async def test_the_last_chunk_goes_with_the_end(serve: Serve) -> None:
    async with serve() as served:
        body = {"prompt": "ab", "max_tokens": 3, "stream": True}
        connection = Connection(served, "/v1/completions", body)
        await connection.task
        delays = (await served.http.get("/metrics")).text
    pieces = [message["body"] for message in connection.sent[1:]]
    assert [piece.count(b"data: ") for piece in pieces] == [1, 1, 2]
    assert b'"length"' in pieces[2] and pieces[2].endswith(b"data: [DONE]\n\n")
    assert 'chunk_delay_seconds_count{engine="0",model_name="tiny"} 3.0' in delays


async def test_a_flood_of_leavers_leaves_nothing_behind(serve: Serve) -> None:
    async with serve() as served:
        body = {"prompt": "ab", "max_tokens": 100, "stream": True}
        connections = [Connection(served, "/v1/completions", body) for _ in range(100)]
        await until(lambda: served.core.num_steps > 2)
        for connection in connections:
            connection.leave()
        await asyncio.gather(*(connection.task for connection in connections))
        await until(lambda: not served.core.has_work)
        await served.engine.wait_until_idle()
        assert len(served.engine.flights) == 0 and served.engine.num_sequences == 0
        assert served.engine._processor.num_unfinished == 0


@pytest.mark.parametrize("name", ["rid", "request_id"])
async def test_who_leaves_takes_no_other_of_the_same_id_along(serve: Serve, name: str) -> None:
    """An id that a client chooses names what it is shown, and nothing inside."""
    async with serve() as served:
        served.core.step_seconds = 0.001
        body = {"prompt": "ab", "max_tokens": 60, "stream": True, name: "mine"}
        leaver, other = [Connection(served, "/v1/completions", body) for _ in range(2)]
        await until(lambda: served.core.num_steps > 2)
        leaver.leave()
        await asyncio.gather(leaver.task, other.task)
    text = b"".join(message.get("body", b"") for message in other.sent).decode()
    chunks = event_data(text)[:-1]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "ab" * 30
    assert len(served.core.aborted) == 1


async def test_an_app_can_be_built_twice(serve: Serve) -> None:
    """No state is global: two applications have their own metrics."""
    async with serve() as one, serve() as two:
        await one.complete(prompt="a", max_tokens=1)
        texts = [(await each.http.get("/metrics")).text for each in (one, two)]
    name = 'vllm:generation_tokens_total{engine="0",model_name="tiny"} '
    assert name + "1.0" in texts[0] and name + "0.0" in texts[1]
