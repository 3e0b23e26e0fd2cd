"""The engine process as the front sees it: started, spoken to in frames, and ended.

    front  <-- Unix socket pair -->  python -m engine.process FD

The pair has no name in the file system, so nobody else can connect, and each end notices at once
when the other dies. Owns the child and its socket; knows no request.
"""

import asyncio
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol, Self

import msgspec

from engine.child_process import child_environment
from engine.config import EngineConfig
from engine.errors import EngineDeadError
from engine.logs import LogSettings
from engine.messages import FromEngine, StartEngine, ToEngine
from engine.wire import FrameBuffer, to_frame
from models.errors import IngotError
from serve.bench.cpu_time import stat_of

STOP_SECONDS = 10.0
_END_SECONDS = 1.0  # from the end of its socket to that of a process
_READ_BYTES = 1 << 20
ENGINE_COMMAND = (sys.executable, "-P", "-m", "engine.process")

_reports = msgspec.msgpack.Decoder(FromEngine)


class StartError(IngotError):
    """The engine could not start; `user_error` says whether other settings would help."""

    def __init__(self, message: str, user_error: bool) -> None:
        super().__init__(message)
        self.user_error = user_error


class EngineLink(Protocol):
    """A running engine, wherever it runs."""

    def send(self, message: ToEngine) -> None:
        """Pass `message` on, soon and in order."""

    async def receive(self) -> FromEngine:
        """The next message; raises EngineDeadError when there will be none."""

    @property
    def has_more(self) -> bool:
        """Whether the message after it is here already."""

    async def stop(self) -> None:
        """End the engine, politely at first."""


class EngineProcess:
    """An `EngineLink` to a child process; made by `start`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._buffer = FrameBuffer()
        self._frames: deque[bytes] = deque()

    @classmethod
    async def start(
        cls,
        config: EngineConfig,
        command: Sequence[str] = ENGINE_COMMAND,
        logs: LogSettings | None = None,
    ) -> Self:
        """Start `command`, with the number of its socket as last argument, and send the rest.

        Raises OSError if there can be no other process.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    str(theirs.fileno()),
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env=child_environment(),
                    start_new_session=True,  # Ctrl-C is for the front, which ends the engine itself
                )
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours)
        writer.write(to_frame(StartEngine(config=config, logs=logs)))
        return cls(process, reader, writer)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: ToEngine) -> None:
        if not self._writer.is_closing():
            self._writer.write(to_frame([message]))

    async def receive(self) -> FromEngine:
        while not self._frames:
            try:
                data = await self._reader.read(_READ_BYTES)
            except OSError:
                data = b""
            if not data:
                raise EngineDeadError(await self._end())
            self._frames += self._buffer.feed(data)
        message: FromEngine = _reports.decode(self._frames.popleft())
        return message

    async def _end(self) -> str:
        """How the process ended whose socket is closed, in a sentence."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        number = -(self._process.returncode or 0)
        if number == signal.SIGKILL:  # of which no process can write anything
            return "The engine process was killed, as the system does where memory runs out."
        by = f" by signal {number} ({signal.strsignal(number)})" if number > 0 else ""
        return f"The engine process ended{by}; its log says why."

    @property
    def has_more(self) -> bool:
        return bool(self._frames)

    async def stop(self) -> None:
        """Close the socket, on which the engine leaves; kill it if it does not."""
        self._writer.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            with suppress(TimeoutError):  # a driver that hangs keeps it: nobody can help that
                async with asyncio.timeout(STOP_SECONDS):
                    await self._process.wait()

    def cpu_seconds(self) -> float | None:
        """Processor time that it has used; None where nobody can say."""
        stat = stat_of(self._process.pid)
        return None if stat is None else stat[1]

    def kill(self) -> None:
        """End the engine at once."""
        if self._process.returncode is None:
            self._process.kill()
