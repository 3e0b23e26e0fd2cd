"""/freeze_gc and /configure_logging."""

import gc
import logging
from collections.abc import Iterator

import pytest

from serve.operations.logs import log_requests
from serve.settings import ServerSettings
from tests.serve.served import Serve, until

pytestmark = pytest.mark.anyio
ANYWHERE = ServerSettings(host="0.0.0.0")


@pytest.fixture
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.getLogger("ingot.requests")
    level = logger.level
    log_requests(False)
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)
    logger.setLevel(level)


async def test_both_processes_freeze_what_they_have(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, collector: None
) -> None:
    frozen: list[str] = []
    monkeypatch.setattr("engine.process.keep_what_is_here", lambda: frozen.append("engine"))
    async with serve() as served:
        before = gc.get_freeze_count()
        answer = await served.http.post("/freeze_gc")
        await until(lambda: frozen)
        assert gc.get_freeze_count() > before
        assert (await served.complete(prompt="a", max_tokens=2)).status_code == 200
    assert (answer.status_code, frozen) == (200, ["engine"])


async def test_requests_are_logged_from_now_on(
    serve: Serve, lines: pytest.LogCaptureFixture
) -> None:
    async with serve() as served:
        await served.complete(prompt="unheard", max_tokens=1)
        on = await served.post("/configure_logging", log_requests=True, log_requests_level=0)
        await served.complete(prompt="heard", max_tokens=1)
        off = await served.post("/configure_logging", log_requests=False)
        await served.complete(prompt="unheard", max_tokens=1)
    told = {record.getMessage() for record in lines.records}
    assert [each.json()["log_requests"] for each in (on, off)] == [True, False]
    assert sum("/v1/completions" in line for line in told) == 1
    assert not any("heard" in line for line in told)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "log_requests"),
        ({"log_requests": True, "log_requests_level": 2}, "log_requests_level"),
        ({"log_requests": True, "dump_requests_folder": "/tmp"}, "dump_requests_folder"),
    ],
)
async def test_texts_are_never_logged(serve: Serve, body: dict[str, object], param: str) -> None:
    async with serve() as served:
        answer = await served.http.post("/configure_logging", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def test_nobody_may_who_could_be_anybody(serve: Serve) -> None:
    async with serve(ANYWHERE) as served:
        answers = [
            await served.http.post("/freeze_gc"),
            await served.post("/configure_logging", log_requests=True),
        ]
    assert [each.status_code for each in answers] == [403, 403]
