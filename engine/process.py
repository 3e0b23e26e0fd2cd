"""The engine's own process: reads requests from a socket, steps, writes reports to it.

    python -m engine.process FD     FD: the inherited, connected end of a Unix socket pair

Owns the loop and its end: the process leaves when the socket closes, whatever it is doing, so it
never outlives the front. Knows neither HTTP nor text. One frame comes in first (the
`StartEngine`), then lists of `ToEngine`; out go `ModelInfo` or `EngineFailed`, then one
`StepReport` a step.
"""

import gc
import logging
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Protocol

import msgspec

from engine.adapters.request import LoRARequest
from engine.cache.page_map import PageMap
from engine.config import EngineConfig
from engine.errors import ConfigError, EngineError, RequestError
from engine.logs import log_engine
from engine.messages import (
    AbortRequests,
    AdapterRead,
    EngineFailed,
    EngineStats,
    LoadAdapter,
    ModelInfo,
    NewRequest,
    PoolRequest,
    ReadPages,
    RequestDelta,
    ResetPrefixCache,
    Speak,
    StartEngine,
    StepReport,
    ToEngine,
    refusal,
)
from engine.wire import FrameBuffer, to_frame
from models.errors import IngotError, ModelError, headline

RECEIVE_BYTES = 1 << 20
_FAILED = "The engine failed at the beginning of this request."
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

    def load_adapter(self, load_id: int, lora: LoRARequest) -> None: ...

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


def run_loop(core: Core, connection: Connection) -> None:
    """Serve until the socket closes, which raises Disconnected. An idle loop uses no CPU."""
    stats = EngineStats()
    while True:
        stats = turn(core, connection, stats)


def turn(core: Core, connection: Connection, stats: EngineStats) -> EngineStats:
    """Take messages, step once and report; `stats` are the newest known, and so is the result."""
    messages = connection.receive(wait=not core.has_work)
    refusals, adapters = apply(core, messages)
    pages = pages_asked_for(core, messages)
    looks = all(isinstance(each, ReadPages | Speak) for each in messages)
    idle = bool(messages) and looks and not core.has_work
    if refusals or adapters or pages is not None or idle:
        connection.send(StepReport(deltas=refusals, stats=stats, pages=pages, adapters=adapters))
    if idle:
        return stats  # a look is no step, and changes no counter
    report = core.step()
    report.sent_at = time.monotonic()
    connection.send(report)
    return report.stats


def pages_asked_for(core: Core, messages: list[ToEngine]) -> PageMap | None:
    """What the core's pages hold, if one of the messages asks."""
    asked = any(isinstance(message, ReadPages) for message in messages)
    return core.page_map() if asked else None


def apply(core: Core, messages: list[ToEngine]) -> tuple[list[RequestDelta], list[AdapterRead]]:
    """Hand the messages to the core; returns the end of each request that it refused, and an
    answer to each adapter that it has no room for."""
    refusals: list[RequestDelta] = []
    adapters: list[AdapterRead] = []
    for message in messages:
        if isinstance(message, AbortRequests):
            core.abort(message.request_ids)
            continue
        if isinstance(message, ResetPrefixCache):
            core.reset_prefix_cache()
            continue
        if isinstance(message, ReadPages | Speak):  # changes nothing
            continue
        if isinstance(message, LoadAdapter):
            try:
                core.load_adapter(message.load_id, message.lora)
            except RequestError as error:
                adapters.append(AdapterRead(message.load_id, str(error)))
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
    return refusals, adapters


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
        with closing(make_core(start.config)) as core:
            connection.send(core.info)
            gc.collect()
            gc.freeze()  # what is here stays: the collector need not look at it again
            run_loop(core, connection)
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
