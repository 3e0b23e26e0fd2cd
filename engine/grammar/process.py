"""The compiler of grammars of one `LLM`: a process, so that no schema can stop or fill a notebook.

    compile ──▶ remembered? ──▶ engine.grammar.worker ──▶ source, or RequestError

It starts with the first grammar. One that a grammar kills is started anew with the next.
"""

import subprocess
import weakref
from contextlib import suppress
from pathlib import Path

import msgspec

from engine.child_process import child_environment
from engine.errors import RequestError
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

_decoder = msgspec.msgpack.Decoder(Compiled)


class GrammarProcess:
    """Compiles for the model in `folder`; used by one thread at a time."""

    def __init__(self, folder: Path, info: ModelInfo) -> None:
        self._settings = WorkerSettings(str(folder), info.vocab_size, info.eos_token_ids)
        self._known = Remembered()
        self._worker: _Worker | None = None

    def compile(self, params: StructuredOutputsParams) -> str:
        """What the engine is to follow.

        Raises RequestError, whose text is a part of a sentence, if it cannot be compiled, and
        OverloadedError if the machine was too busy.
        """
        key = key_of(params)
        answer = self._known.get(key)
        if answer is None:
            answer = self._ask(params)
            self._known.put(key, answer)
        if answer.error is not None:
            raise RequestError(answer.error)
        return answer.source

    def close(self) -> None:
        """End the process, if there is one."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()

    def _ask(self, params: StructuredOutputsParams) -> Compiled:
        try:
            if self._worker is None:
                self._worker = _Worker()
                self._worker.begin(self._settings)
            answer = self._worker.exchange(params)
            code = None if answer else self._worker.wait()
        except BaseException:  # an interrupt too: what it says next answers no question
            self.close()
            raise
        if answer is not None:
            return answer
        self.close()
        return what_ended_it(code or 0)


class _Worker:
    """One process, which ends with this object at the latest."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            worker_messages.COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(),
            start_new_session=True,  # Ctrl-C is for the script
        )
        self._finish = weakref.finalize(self, _end, self._process)

    def begin(self, settings: WorkerSettings) -> None:
        """Have it read the model's tokenizer; raises RequestError if it cannot."""
        answer = self.exchange(settings)
        if answer is None:
            raise RuntimeError(f"the compiler of grammars ended with status {self.wait()}")
        if answer.error is not None:
            raise RequestError(answer.error)

    def exchange(self, message: object) -> Compiled | None:
        """What it answers; None if it ends instead."""
        read, write = self._process.stdout, self._process.stdin
        if read is None or write is None:
            raise RuntimeError("the worker has no pipes")
        with suppress(BrokenPipeError):
            write.write(to_frame(message))
            write.flush()
        header = read.read(HEADER.size)
        if len(header) < HEADER.size:
            return None
        return _decoder.decode(read.read(payload_size(*HEADER.unpack(header))))

    def wait(self) -> int:
        """The status of one that has ended."""
        return self._process.wait()

    def end(self) -> None:
        """Kill it, if it is still there."""
        self._finish()


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):  # what was not sent
                pipe.close()
