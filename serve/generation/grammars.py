"""Grammars of requests, compiled in processes that can be killed, and remembered.

    compile ──▶ remembered? ──▶ a free worker (engine.grammar.worker) ──▶ source, or RequestError

A worker that a grammar kills takes nobody along; the grammar is remembered as bad. The event loop
only waits. Owns the workers and what they said; what the fields of a request mean is
`serve.protocol.structured_outputs`'s.
"""

import asyncio
import subprocess
from contextlib import suppress
from pathlib import Path

import msgspec

from engine.child_process import child_environment
from engine.errors import OverloadedError, RequestError
from engine.grammar import worker_messages
from engine.grammar.params import StructuredOutputsParams
from engine.grammar.worker_messages import (
    Compiled,
    Remembered,
    WorkerSettings,
    key_of,
    what_ended_it,
)
from engine.messages import ModelInfo
from engine.wire import HEADER, payload_size, to_frame

WORKERS = 2
QUEUE_SECONDS = 10.0
_decoder = msgspec.msgpack.Decoder(Compiled)


class GrammarCompiler:
    """The compilers of one model's front; they start when they are first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known = Remembered()
        self._turns = asyncio.Semaphore(WORKERS)
        self._idle: list[_Worker] = []

    async def compile(self, params: StructuredOutputsParams, info: ModelInfo) -> str:
        """What the engine is to follow.

        Raises RequestError, whose text is a part of a sentence, if it cannot be compiled, and
        OverloadedError if the compilers were busy for `QUEUE_SECONDS`, or the machine for longer.
        """
        key = key_of(params)
        answer = self._known.get(key)
        if answer is None:
            answer = await self._ask(params, info)
            self._known.put(key, answer)
        if answer.error is not None:
            raise RequestError(answer.error)
        return answer.source

    async def close(self) -> None:
        """End the workers."""
        workers, self._idle = self._idle, []
        for worker in workers:
            await worker.end()

    async def _ask(self, params: StructuredOutputsParams, info: ModelInfo) -> Compiled:
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            raise OverloadedError("The grammar compilers are busy.") from None
        worker = None
        try:
            worker = self._idle.pop() if self._idle else await _Worker.start(self._folder, info)
            answer = await worker.ask(params)
            if worker.alive:
                self._idle.append(worker)
                worker = None
            return answer
        finally:
            self._turns.release()
            if worker is not None:  # it died, or its client left in the middle
                await worker.end()


class _Worker:
    """One process; made by `start`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        read: asyncio.StreamReader,
        write: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._read = read
        self._write = write
        self.alive = True

    @classmethod
    async def start(cls, folder: Path, info: ModelInfo) -> "_Worker":
        """A worker that has read the model's tokenizer; raises RequestError if it cannot."""
        process = await asyncio.create_subprocess_exec(
            *worker_messages.COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(),
            start_new_session=True,
        )
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("the worker has no pipes")
        worker = cls(process, process.stdout, process.stdin)
        settings = WorkerSettings(str(folder), info.vocab_size, info.eos_token_ids)
        try:
            answer = await worker._exchange(settings)
        except BaseException:
            await worker.end()
            raise
        if answer.error is not None:
            await worker.end()
            raise RequestError(answer.error)
        return worker

    async def ask(self, params: StructuredOutputsParams) -> Compiled:
        """What it says, or what its death says; raises OverloadedError if that is nothing."""
        try:
            return await self._exchange(params)
        except (asyncio.IncompleteReadError, OSError):
            self.alive = False
            return what_ended_it(await self._process.wait())

    async def end(self) -> None:
        """Kill it, if it is still there."""
        self._write.close()
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def _exchange(self, message: object) -> Compiled:
        self._write.write(to_frame(message))
        header = await self._read.readexactly(HEADER.size)
        return _decoder.decode(await self._read.readexactly(payload_size(*HEADER.unpack(header))))
