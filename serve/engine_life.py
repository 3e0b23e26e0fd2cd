"""The engine's life under the server: started, watched while it works, and started again.

    start ▸ "ready" ▸ work ─┬─ its process ended ────────────┬─▸ start again, or the server's end
                            └─ no step ended for too long ▸ kill

A first failure, and any after the engine has worked for a while, are made good by a new engine; one
that fails soon after it was started for that will not be helped by another, so the server ends.
Owns these decisions; processes are `engine_process`'s, requests the client's.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from engine.messages import ModelInfo
from serve.engine_client import HUNG_SECONDS, EngineClient
from serve.engine_process import EngineProcess, StartError
from serve.operations.metrics import Metrics

FAILURES_APART_SECONDS = 600.0  # that an engine must have worked for, to be replaced once more
_LOOK_SECONDS = 5.0  # between two looks at an engine
_COMPUTING = 0.1  # of a processor; who uses more on a machine without an accelerator is in a step
_MOST_PATIENCE = 10  # times as long as anywhere else, for such a step


@dataclass(frozen=True)
class _End:
    """Why an engine ended, the exit code if it never began, and how long it could serve."""

    reason: str
    code: int | None = None
    seconds: float = 0.0


class EngineLife:
    """One engine after the other, each connected to `client`."""

    def __init__(
        self,
        start: Callable[[], Awaitable[EngineProcess]],
        client: EngineClient,
        metrics: Metrics,
        *,
        watchdog_timeout: float,
        on_ready: Callable[[ModelInfo], None],
        on_failure: Callable[[str], None],
        forced: asyncio.Event,
    ) -> None:
        """`watchdog_timeout` is how many seconds a step may take; once `forced`, an engine that is
        to end has no time for it."""
        self._start = start
        self._client = client
        self._metrics = metrics
        self._timeout = watchdog_timeout
        self._on_ready = on_ready
        self._on_failure = on_failure
        self._forced = forced

    async def run(self) -> int:
        """The exit code, once an engine has failed for good."""
        end = await self._live()
        is_first = True
        while end.code is None and (is_first or end.seconds >= FAILURES_APART_SECONDS):
            minutes = f"{FAILURES_APART_SECONDS / 60:.0f} minutes"
            self._on_failure(
                f"{end.reason} It is started again; if it fails within {minutes} of being ready, "
                "the server ends."
            )
            self._client.restart()
            end, is_first = await self._live(), False
        self._on_failure(end.reason)
        return 1 if end.code is None else end.code

    async def _live(self) -> _End:
        """Start an engine and pass its reports on until it ends, which it should not do."""
        try:
            process = await self._start()
        except OSError as error:  # no memory, no descriptors or no processes left
            return _End(f"The engine's process cannot be started: {error.strerror or error}.", 1)
        self._metrics.engine_started(process.pid)
        try:
            info = await self._client.connect(process)
            began = time.monotonic()
            self._on_ready(info)
            reason = await work(self._client, process, info, self._timeout)
            return _End(reason, seconds=time.monotonic() - began)
        except StartError as error:
            return _End(str(error), 2 if error.user_error else 1)
        finally:
            killing = asyncio.create_task(self._kill_if_forced(process))
            await process.stop()
            killing.cancel()

    async def _kill_if_forced(self, process: EngineProcess) -> None:
        await self._forced.wait()
        process.kill()


async def work(
    client: EngineClient, process: EngineProcess, info: ModelInfo, watchdog_timeout: float
) -> str:
    """Deliver an engine's reports until it ends or hangs; why, in a sentence.

    One that hangs is killed, and what it worked on fails.
    """
    pump = asyncio.create_task(client.pump())
    used = process.cpu_seconds if info.device == "cpu" else lambda: None
    hang = asyncio.create_task(until_hung(client, watchdog_timeout, used))
    try:
        await asyncio.wait({pump, hang}, return_when=asyncio.FIRST_COMPLETED)
        if pump.done():
            return pump.result()
        client.fail_all("The engine hung at work on this request; try again soon.")
        process.kill()
        return f"The engine had to answer and was silent for {watchdog_timeout:g} s."
    finally:
        for task in (pump, hang):
            task.cancel()
        await asyncio.gather(pump, hang, return_exceptions=True)


async def until_hung(
    client: EngineClient, seconds: float, cpu_seconds: Callable[[], float | None]
) -> None:
    """Return once the engine has had work, if only to say a word, and said nothing for so long.

    `cpu_seconds` tells how much processor time it has used, where that is what computes: a step of
    a large model then takes what it takes, and an engine that computes does not hang until it has
    taken ten times as long; `client` refuses requests as late. Compiling is no reason to be silent:
    steps run what was compiled.
    """
    look, before = min(_LOOK_SECONDS, seconds / 4), 0.0
    while True:
        await asyncio.sleep(look)
        silent = client.silent_seconds
        if not silent:
            client.ask_for_a_word()
            continue
        used = cpu_seconds()
        computes = used is not None and used - before > _COMPUTING * look
        before = used or 0.0
        times = _MOST_PATIENCE if computes else 1
        client.patience = HUNG_SECONDS * times
        if silent >= seconds * times:
            return
