"""The grammar compiler as a process of its own, so that no schema can stop or fill the server.

    python -m engine.grammar.worker      frames (engine.wire) come in on stdin and go out on stdout

One frame comes first (`WorkerSettings`), then one `StructuredOutputsParams` at a time; a `Compiled`
answers each. A grammar that takes more than `COMPILE_SECONDS` of the processor ends the process by
its alarm (SIGPROF), one that needs more memory than `_EXTRA_BYTES` by the allocator: both are the
grammar's fault, and whoever asked starts another process. What takes longer than `WALL_SECONDS`
though it computes less ends it by another alarm (SIGALRM): the machine is busy. It never reads or
writes a file but the tokenizer's.
"""

import resource
import signal
import sys
import threading
from pathlib import Path
from typing import BinaryIO

import msgspec

from engine.errors import RequestError
from engine.grammar.matcher import Vocabulary, check_grammar, make_vocabulary
from engine.grammar.params import StructuredOutputsParams
from engine.grammar.source import grammar_source
from engine.grammar.tags import SpecialTokens
from engine.grammar.worker_messages import Compiled, WorkerSettings
from engine.tokenizers.tokenizer import Tokenizer
from engine.wire import HEADER, payload_size, to_frame
from models.errors import IngotError

COMPILE_SECONDS = 2.0
WALL_SECONDS = 20.0
_EXTRA_BYTES = 2 * 2**30  # of address space, over what the process has when it is ready
_STACK_BYTES = 4 * 2**20  # half of what the engine's threads have, which compile it again


def compile_params(
    params: StructuredOutputsParams, vocabulary: Vocabulary, special_tokens: SpecialTokens
) -> Compiled:
    """The engine's source for `params`, compiled once to see that it can be."""
    try:
        source = grammar_source(params, special_tokens)
        check_grammar(vocabulary, source)
    except RequestError as error:
        return Compiled(error=str(error))
    except RecursionError:
        return Compiled(error="it is nested too deeply")
    except MemoryError:
        return Compiled(error="it takes too much memory to compile")
    return Compiled(source)


def serve(read: BinaryIO, write: BinaryIO) -> None:
    """Answer until the other end is closed."""
    frame = _frame(read)
    if frame is None:
        return
    try:
        vocabulary, special = _load(msgspec.msgpack.decode(frame, type=WorkerSettings))
    except IngotError as error:
        _send(write, Compiled(error=str(error)))
        return
    _limit_memory()
    _send(write, Compiled())
    decoder = msgspec.msgpack.Decoder(StructuredOutputsParams)
    while (frame := _frame(read)) is not None:
        _set_alarms(COMPILE_SECONDS, WALL_SECONDS)
        answer = compile_params(decoder.decode(frame), vocabulary, special)
        _set_alarms(0, 0)
        _send(write, answer)


def _set_alarms(processor_seconds: float, wall_seconds: float) -> None:
    """Each ends the process by its own signal; 0 switches it off."""
    signal.setitimer(signal.ITIMER_PROF, processor_seconds)
    signal.setitimer(signal.ITIMER_REAL, wall_seconds)


def _load(settings: WorkerSettings) -> tuple[Vocabulary, SpecialTokens]:
    tokenizer = Tokenizer.load(Path(settings.folder))
    if tokenizer is None:
        raise RequestError("this model has no tokenizer")
    vocabulary = make_vocabulary(tokenizer, settings.vocab_size, settings.eos_token_ids)
    return vocabulary, tokenizer.mark_ids


def _limit_memory() -> None:
    """Where the system counts it in /proc; elsewhere the alarms are the only limit.

    What is left of one that ends for it is no file of as many bytes.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    counts = Path("/proc/self/statm")
    if counts.exists():
        used = int(counts.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _EXTRA_BYTES, used + _EXTRA_BYTES))


def _frame(read: BinaryIO) -> bytes | None:
    header = read.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    return read.read(payload_size(*HEADER.unpack(header)))


def _send(write: BinaryIO, answer: Compiled) -> None:
    write.write(to_frame(answer))
    write.flush()


def main() -> int:
    """Serve in a thread, for its stack's size can be chosen."""
    threading.stack_size(_STACK_BYTES)
    thread = threading.Thread(target=serve, args=(sys.stdin.buffer, sys.stdout.buffer))
    thread.start()
    thread.join()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
