"""When an engine is taken for hung, and how often it is replaced."""

import asyncio
import errno
from typing import Any

import pytest

from engine.config import EngineConfig
from engine.errors import EngineDeadError
from engine.messages import EngineFailed, FromEngine
from engine.output_processor import OutputProcessor
from engine.sampling.params import SamplingParams
from serve import engine_life
from serve.engine_client import HUNG_SECONDS, EngineClient, Prompt
from serve.engine_life import EngineLife, until_hung
from serve.operations.metrics import Metrics
from tests.fake_engine import FakeCore
from tests.serve.served import PATIENCE, Serve, until

pytestmark = pytest.mark.anyio


class Looks:
    """A client whose engine is silent; each look at it takes 1/4 of the limit."""

    def __init__(self, computing: bool = False, speaks_at: float = 0.0) -> None:
        self.silent = 0.0
        self._used, self._computing, self._speaks_at = 0.0, computing, speaks_at

    @property
    def silent_seconds(self) -> float:
        self.silent += 0.0025
        if self._speaks_at and self.silent >= self._speaks_at:
            self.silent, self._speaks_at = 0.001, 0.0
        return self.silent

    def ask_for_a_word(self) -> None:
        pass

    def cpu_seconds(self) -> float:
        self._used += 0.002 if self._computing else 0.0
        return self._used


@pytest.mark.parametrize(
    ("looks", "silent"),
    [
        (Looks(), 0.01),
        (Looks(speaks_at=0.009), 0.011),  # one word, and it begins anew
        (Looks(computing=True), 0.1),  # a step that computes has ten times as long
    ],
)
async def test_silence_at_work_is_a_hang(looks: Any, silent: float) -> None:
    async with asyncio.timeout(PATIENCE):
        await until_hung(looks, 0.01, looks.cpu_seconds)
    assert looks.silent == pytest.approx(silent, abs=0.002)
    assert (looks.patience > HUNG_SECONDS) == (silent == 0.1)  # of requests, too


class Failing:
    """A process whose engine is ready, and fails."""

    pid = 0

    def __init__(self) -> None:
        self._said: list[FromEngine] = [FakeCore(EngineConfig()).info, EngineFailed("Bad.", False)]

    async def receive(self) -> FromEngine:
        if not self._said:
            raise EngineDeadError("It ended.")
        return self._said.pop(0)

    def cpu_seconds(self) -> float:
        return 0.0

    async def stop(self) -> None:
        pass


@pytest.mark.parametrize(("apart", "lives"), [(0.0, 5), (600.0, 2)])
async def test_failures_far_apart_are_made_good_and_others_end_the_server(
    monkeypatch: pytest.MonkeyPatch, apart: float, lives: int
) -> None:
    monkeypatch.setattr(engine_life, "FAILURES_APART_SECONDS", apart)
    metrics, started, said = Metrics("tiny"), [], []

    async def start() -> Any:
        started.append(Failing())
        if len(started) == 5:
            started[-1]._said = [EngineFailed("No memory.", False)]
        return started[-1]

    client = EngineClient(OutputProcessor(None), metrics)
    life = EngineLife(
        start, client, metrics,
        watchdog_timeout=60.0, on_ready=lambda _: None, on_failure=said.append,
        forced=asyncio.Event(),
    )  # fmt: skip
    assert await life.run() == 1
    assert len(started) == lives and sum("started again" in each for each in said) == lives - 1
    assert said[-1] == ("Bad." if lives == 2 else "No memory.")


async def test_an_engine_that_cannot_be_started_again_is_the_server_s_end() -> None:
    metrics, started, said = Metrics("tiny"), [], []

    async def start() -> Any:
        if started:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        started.append(Failing())
        return started[0]

    client = EngineClient(OutputProcessor(None), metrics)
    life = EngineLife(
        start, client, metrics,
        watchdog_timeout=60.0, on_ready=lambda _: None, on_failure=said.append,
        forced=asyncio.Event(),
    )  # fmt: skip
    assert await life.run() == 1
    assert said[-1] == "The engine's process cannot be started: Cannot allocate memory."


async def test_an_engine_that_does_not_end_is_killed_when_the_server_is_told_twice() -> None:
    class Stubborn(Failing):
        def __init__(self) -> None:
            super().__init__()
            self.stopping, self.killed = asyncio.Event(), asyncio.Event()
            self.kill = self.killed.set

        async def receive(self) -> FromEngine:
            if len(self._said) == 1:
                await asyncio.Event().wait()
            return self._said.pop(0)

        async def stop(self) -> None:
            self.stopping.set()
            await self.killed.wait()

    metrics, forced, ready, process = Metrics("tiny"), asyncio.Event(), asyncio.Event(), Stubborn()

    async def start() -> Any:
        return process

    life = EngineLife(
        start, EngineClient(OutputProcessor(None), metrics), metrics, watchdog_timeout=60.0,
        on_ready=lambda _: ready.set(), on_failure=lambda _: None, forced=forced,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE):
        task = asyncio.create_task(life.run())
        await ready.wait()
        task.cancel()
        await process.stopping.wait()
        assert not process.killed.is_set()
        forced.set()
        await asyncio.gather(task, return_exceptions=True)
    assert process.killed.is_set() and task.cancelled()


async def test_what_a_slow_client_has_not_read_is_no_work_of_the_next_engine() -> None:
    client = EngineClient(OutputProcessor(None), Metrics("m"))
    await client.connect(Ending())
    params = SamplingParams(max_tokens=9, detokenize=False)
    with client.generate("slow", [Prompt(None, [1], params)]):
        await client.pump()
        client.restart()
        await client.connect(Ending())
        assert client.num_sequences == 0
        assert client.silent_seconds < PATIENCE


class Ending:
    """A link to an engine that is ready, takes requests, and ends."""

    has_more = False

    def __init__(self) -> None:
        self._said: list[FromEngine] = [FakeCore(EngineConfig()).info]

    async def receive(self) -> FromEngine:
        if not self._said:
            raise EngineDeadError("It ended.")
        return self._said.pop(0)

    def send(self, message: object) -> None:
        pass


async def test_an_engine_that_hangs_with_nothing_to_do_is_found(serve: Serve) -> None:
    """Before the next client finds it: it is asked for a word now and then, and has to answer."""

    async with serve() as served, asyncio.timeout(PATIENCE):
        with served.engine_stopped():
            await until_hung(served.engine, 0.02, lambda: None)
            assert served.engine.silent_seconds >= 0.02
        await until(lambda: not served.engine.silent_seconds)  # it has answered
        steps = served.engine.stats.num_steps
        watching = asyncio.create_task(until_hung(served.engine, 30.0, lambda: None))
        await asyncio.sleep(0.01)
        assert not watching.done() and served.engine.stats.num_steps == steps
        watching.cancel()
