"""What is said to a compiler of grammars and by it, and what its death says of the grammar.

Both who start one (`engine.grammar.process`, `serve.generation.grammars`) and the compiler itself
(`engine.grammar.worker`) read this; it imports none of what compiles.
"""

import signal
import sys
from collections import OrderedDict

import msgspec

from engine.errors import OverloadedError, RequestError

REMEMBERED_BYTES = 8 * 2**20
COMMAND = (sys.executable, "-P", "-m", "engine.grammar.worker")


class WorkerSettings(msgspec.Struct):
    """The model: its folder, the columns of its logits, its end-of-text ids."""

    folder: str
    vocab_size: int
    eos_token_ids: list[int]


class Compiled(msgspec.Struct):
    """What the engine compiles again, or what is wrong with it; no sentence, but a part of one."""

    source: str = ""
    error: str | None = None


def key_of(params: msgspec.Struct) -> bytes:
    """What tells one question from another; raises RequestError for one that cannot be sent."""
    try:
        return msgspec.msgpack.encode(params)
    except OverflowError:
        raise RequestError("it holds an integer of more than 64 bits") from None
    except (TypeError, ValueError, RecursionError) as error:  # half a surrogate pair, say
        raise RequestError(f"it holds what JSON cannot: {error}") from None


class Remembered:
    """Answers by what was asked, the newest, up to a number of bytes."""

    def __init__(self, max_bytes: int = REMEMBERED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._answers: OrderedDict[bytes, Compiled] = OrderedDict()
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: bytes) -> Compiled | None:
        if key in self._answers:
            self._answers.move_to_end(key)
        return self._answers.get(key)

    def put(self, key: bytes, answer: Compiled) -> None:
        if key not in self._answers:
            self.num_bytes += _size(key, answer)
            self._answers[key] = answer
        while self.num_bytes > self._max_bytes:
            self.num_bytes -= _size(*self._answers.popitem(last=False))


def what_ended_it(code: int) -> Compiled:
    """What a worker that ended in the middle of a grammar leaves to say of it.

    Raises:
        OverloadedError: nothing; the machine was busy, or somebody else ended it.
    """
    if code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP):  # no limit sends them
        raise OverloadedError("The compiler of grammars was ended from outside; try again.")
    if code == -signal.SIGALRM:
        raise OverloadedError("The machine is too busy to compile grammars.")
    slow = code == -signal.SIGPROF
    return Compiled(error=f"it takes too {'long' if slow else 'much memory'} to compile")


def _size(key: bytes, answer: Compiled) -> int:
    return len(key) + len(answer.source) + 200
