"""An application over a scripted core, both in this event loop, and a client for it."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

import httpx
from starlette.applications import Starlette

from engine.beams.core import BeamCore
from engine.errors import EngineDeadError
from engine.messages import EngineFailed, FromEngine, StepReport, ToEngine
from engine.process import apply, pages_asked_for, profile
from engine.profiling.profiler import Profiler
from serve.engine_client import EngineClient
from tests.fake_engine import FakeCore

PATIENCE = 60.0  # seconds; how long anything may take on a machine that is busy with other things
Serve = Callable[..., AbstractAsyncContextManager["Served"]]


class InProcessEngine:
    """An `EngineLink` to a core in this event loop; the core steps only while it has work."""

    def __init__(self, core: FakeCore) -> None:
        self.core = core
        self._beams = BeamCore(core)
        self._profiler = Profiler(core.config.profiler_config)
        self._inbox: asyncio.Queue[list[ToEngine]] = asyncio.Queue()
        self._ready = False
        self._num_steps = 0  # that the engine has started, as far as is known
        self._pending: list[FromEngine] = []
        self.steps_at_once = 1  # reports that pile up before the client takes the first
        self.dead = False
        self.go_on = asyncio.Event()
        self.go_on.set()

    def send(self, message: ToEngine) -> None:
        self._inbox.put_nowait([message])

    async def receive(self) -> FromEngine:
        if not self._pending:
            self._pending.append(await self._next())
            while len(self._pending) < self.steps_at_once and self.core.has_work:
                self._pending.append(await self._next())
        return self._pending.pop(0)

    @property
    def has_more(self) -> bool:
        return bool(self._pending)

    async def _next(self) -> FromEngine:
        if not self._ready:
            self._ready = True
            return self.core.info
        if self.dead:
            raise EngineDeadError("The engine process ended.")
        messages: list[ToEngine] = []
        if not self.core.has_work:
            messages += await self._inbox.get()
        await asyncio.sleep(self.core.step_seconds)
        await self.go_on.wait()
        while not self._inbox.empty():
            messages += self._inbox.get_nowait()
        refusals, answers = apply(self._beams, messages)
        answers += profile(self._profiler, messages, self._num_steps)
        try:
            report = self._beams.step()
        except RuntimeError as error:
            self.dead = True
            return EngineFailed(str(error), False)
        self._num_steps = report.stats.num_steps
        self._profiler.see(self._num_steps)
        deltas, now = refusals + report.deltas, time.monotonic()
        pages = pages_asked_for(self._beams, messages)
        return StepReport(
            deltas=deltas, stats=report.stats, pages=pages, sent_at=now,
            answers=answers + report.answers,
        )  # fmt: skip

    async def stop(self) -> None:
        self.dead = True


class Served:
    """A running application, its core, and a client for it."""

    def __init__(self, app: Starlette, core: FakeCore, engine: EngineClient) -> None:
        self.app, self.core, self.engine = app, core, engine
        transport = httpx.ASGITransport(app=app)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://test")

    @contextmanager
    def engine_stopped(self) -> Iterator[None]:
        """Meanwhile no request gets any further, however long the rest takes."""
        link: Any = self.engine._outbox.link
        link.go_on.clear()
        try:
            yield
        finally:
            link.go_on.set()

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self.http.post(path, json=body)

    async def complete(self, **body: Any) -> httpx.Response:
        return await self.post("/v1/completions", **body)

    async def chat(self, content: str = "Hi", **body: Any) -> httpx.Response:
        messages = [{"role": "user", "content": content}]
        return await self.post("/v1/chat/completions", **{"messages": messages, **body})


async def until(condition: Callable[[], Any]) -> None:
    """Let the other tasks run until it is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


def event_data(text: str) -> list[Any]:
    """The events of a stream; the last is "[DONE]"."""
    assert text.endswith("\n\n")
    events = [each.removeprefix("data: ") for each in text[:-2].split("\n\n")]
    return [each if each == "[DONE]" else json.loads(each) for each in events]
