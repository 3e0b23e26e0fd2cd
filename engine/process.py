"""The engine's own process: reads requests from a socket, steps, writes reports to it.

    python -m engine.process FD     FD: the inherited, connected end of a Unix socket pair

Owns the loop and its end: the process leaves when the socket closes, whatever it is doing, so it
never outlives the front. Knows neither HTTP nor text. One frame comes in first (the
`StartEngine`), then lists of `ToEngine`; out go `ModelInfo` or `EngineFailed`, then one
`StepReport` a step.
"""

import logging
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Protocol

import msgspec

from engine.adapters.request import LoRARequest
from engine.cache.page_map import PageMap
from engine.collector import keep_what_is_here
from engine.config import EngineConfig
from engine.errors import ConfigError, EngineError, RequestError
from engine.logs import log_engine
from engine.messages import (
    AbortRequests,
    Answer,
    EngineFailed,
    EngineStats,
    Freeze,
    FreezeGarbage,
    LoadAdapter,
    MemoryChange,
    ModelInfo,
    NewRequest,
    PoolRequest,
    ReadPages,
    RequestDelta,
    ResetPrefixCache,
    Speak,
    StartEngine,
    StartProfile,
    StepReport,
    StopProfile,
    Thaw,
    ToEngine,
    refusal,
)
from engine.profiling.profiler import Profiler
from engine.wire import FrameBuffer, to_frame
from models.errors import IngotError, ModelError, headline

RECEIVE_BYTES = 1 << 20
_FAILED = "The engine failed at the beginning of this request."
_LOOKS = ReadPages | Speak | StartProfile | StopProfile  # are no work
ORPHAN_SECONDS = 1.0  # how long a step or a compile may go on after the front is gone
logger = logging.getLogger("engine.process")  # which it is not called where it is the program


class Core(Protocol):
    """What the loop drives: `engine.beams.core.BeamCore`, or a scripted one in tests."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def has_work(self) -> bool: ...

    def add(self, message: NewRequest | PoolRequest) -> None: ...

    def abort(self, request_ids: list[int]) -> None: ...

    def reset_prefix_cache(self) -> None: ...

    def freeze(self, *, retract: bool) -> None: ...

    def thaw(self) -> None: ...

    def load_adapter(self, call_id: int, lora: LoRARequest) -> None: ...

    def change_memory(self, message: MemoryChange) -> None: ...

    def page_map(self) -> PageMap | None: ...

    def step(self) -> StepReport: ...

    def close(self) -> None: ...


class Disconnected(Exception):
    """The front closed the socket, or died."""


class Connection:
    """The engine's end of the socket."""

    def __init__(self, peer: socket.socket) -> None:
        self._socket = peer
        self._buffer = FrameBuffer()
        self._requests = msgspec.msgpack.Decoder(list[ToEngine])

    def receive_start(self) -> StartEngine:
        """The first message; raises Disconnected."""
        return msgspec.msgpack.decode(self._frames(wait=True)[0], type=StartEngine)

    def receive(self, *, wait: bool) -> list[ToEngine]:
        """All messages that are here, at least one batch if `wait`; raises Disconnected."""
        frames = self._frames(wait=wait)
        return [message for frame in frames for message in self._requests.decode(frame)]

    def send(self, message: StepReport | ModelInfo | EngineFailed) -> None:
        """Raises Disconnected."""
        try:
            self._socket.sendall(to_frame(message))
        except OSError:
            raise Disconnected from None

    def _frames(self, *, wait: bool) -> list[bytes]:
        while True:
            try:
                data = self._socket.recv(RECEIVE_BYTES, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return []
            except OSError:
                raise Disconnected from None
            if not data:
                raise Disconnected
            frames = self._buffer.feed(data)
            if frames or not wait:
                return frames


def run_loop(core: Core, connection: Connection, profiler: Profiler) -> None:
    """Serve until the socket closes, which raises Disconnected. An idle loop uses no CPU."""
    stats = EngineStats()
    while True:
        stats = turn(core, connection, stats, profiler)
        profiler.see(stats.num_steps)


def turn(core: Core, connection: Connection, stats: EngineStats, profiler: Profiler) -> EngineStats:
    """Take messages, step once and report; `stats` are the newest known, and so is the result."""
    messages = connection.receive(wait=not core.has_work)
    refusals, answers = apply(core, messages)
    answers += profile(profiler, messages, stats.num_steps)
    pages = pages_asked_for(core, messages)
    looks = all(isinstance(each, _LOOKS) for each in messages)
    idle = bool(messages) and looks and not core.has_work
    if refusals or answers or pages is not None or idle:
        connection.send(StepReport(deltas=refusals, stats=stats, pages=pages, answers=answers))
    if idle:
        return stats  # a look is no step, and changes no counter
    report = core.step()
    report.sent_at = time.monotonic()
    connection.send(report)
    return report.stats


def profile(profiler: Profiler, messages: list[ToEngine], num_steps: int) -> list[Answer]:
    """Start and end traces as the messages ask; an answer to each that does."""
    answers: list[Answer] = []
    for message in messages:
        if isinstance(message, StartProfile):
            start = partial(profiler.start, message.request, num_steps)
            answers.append(answer(message.call_id, start))
        elif isinstance(message, StopProfile):
            answers.append(answer(message.call_id, profiler.stop))
    return answers


def answer(call_id: int, act: Callable[[], None]) -> Answer:
    """Grant an operator's wish, or say why it cannot be."""
    try:
        act()
    except RequestError as error:
        return Answer(call_id, str(error), error.param)
    return Answer(call_id)


def pages_asked_for(core: Core, messages: list[ToEngine]) -> PageMap | None:
    """What the core's pages hold, if one of the messages asks."""
    asked = any(isinstance(message, ReadPages) for message in messages)
    return core.page_map() if asked else None


def apply(core: Core, messages: list[ToEngine]) -> tuple[list[RequestDelta], list[Answer]]:
    """Hand the messages to the core; returns the end of each request that it refused, and an
    answer to what an operator cannot have: an adapter without room for any, other memory."""
    refusals: list[RequestDelta] = []
    answers: list[Answer] = []
    for message in messages:
        if isinstance(message, AbortRequests):
            core.abort(message.request_ids)
            continue
        if isinstance(message, ResetPrefixCache):
            core.reset_prefix_cache()
            continue
        if isinstance(message, FreezeGarbage):
            keep_what_is_here()
            continue
        if isinstance(message, Freeze):
            core.freeze(retract=message.retract)
            answers.append(Answer(message.call_id))
            continue
        if isinstance(message, Thaw):
            core.thaw()
            continue
        if isinstance(message, _LOOKS):  # changes nothing
            continue
        if isinstance(message, LoadAdapter | MemoryChange):
            if isinstance(message, LoadAdapter):
                begin = partial(core.load_adapter, message.call_id, message.lora)
            else:
                begin = partial(core.change_memory, message)
            asked = answer(message.call_id, begin)
            if asked.error is not None:  # else a step's report answers, when it is read
                answers.append(asked)
            continue
        try:
            core.add(message)
        except RequestError as error:
            refusals += refusal(message, str(error), error.param)
        except EngineError:  # there is no engine any more
            raise
        except Exception:  # one request's failure, whatever it is, is that one's alone
            logger.exception("a request could not be begun")
            refusals += refusal(message, _FAILED, internal=True)
            core.abort(message.sequences)
    return refusals, answers


def serve_engine(peer: socket.socket, make_core: Callable[[EngineConfig], Core]) -> int:
    """Build the core that the front asks for and run it; returns the process's exit code."""
    connection = Connection(peer)
    threading.Thread(target=_leave_with_the_front, args=(peer.fileno(),), daemon=True).start()
    try:
        return _build_and_run(connection, make_core)
    except Disconnected:
        return 0


def _build_and_run(connection: Connection, make_core: Callable[[EngineConfig], Core]) -> int:
    try:
        start = connection.receive_start()
        if start.logs is not None:
            log_engine(start.logs)
        profiler = Profiler(start.config.profiler_config)
        with closing(make_core(start.config)) as core, closing(profiler):
            connection.send(core.info)
            keep_what_is_here()
            run_loop(core, connection, profiler)
    except Disconnected:
        raise
    except (ConfigError, ModelError) as error:
        connection.send(EngineFailed(str(error), user_error=True))
    except Exception as error:
        logger.critical("the engine failed", exc_info=True)
        known = isinstance(error, IngotError)
        sentence = str(error) if known else f"The engine failed with {headline(error)}."
        connection.send(EngineFailed(sentence, user_error=False))
    return 1


def _leave_with_the_front(fd: int) -> None:
    """End the process when the front hung up, even in the middle of a step or a compile."""
    poll = select.poll()
    poll.register(fd, select.POLLHUP | select.POLLERR)
    poll.poll()
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)


def main(arguments: list[str]) -> int:
    """Run the core of the model on the socket whose file descriptor is the only argument."""
    from engine.cores import make_served_core

    with socket.socket(fileno=int(arguments[0])) as peer:
        return serve_engine(peer, make_served_core)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
