"""Adapters read in threads of their own, while the engine computes: disks may be slow.

    start ──> a thread reads and checks the files ──> collect: its arrays, or why there are none

Owns the threads. They are daemons: who waits for a disk keeps no engine from ending.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import numpy as np

from engine.adapters.request import LoRARequest
from models.errors import ModelError

logger = logging.getLogger(__name__)

Arrays = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class ReadAdapter:
    """What became of an adapter: the arrays of a slot, or a sentence that says why not."""

    lora: LoRARequest
    arrays: Arrays = ()
    error: str | None = None


class AdapterReader:
    """`read` gives the arrays of an adapter, or raises ModelError; it is called in threads."""

    def __init__(self, read: Callable[[LoRARequest], Arrays]) -> None:
        self._read = read
        self._done: SimpleQueue[ReadAdapter] = SimpleQueue()
        self._reading: set[LoRARequest] = set()

    @property
    def busy(self) -> bool:
        """Whether something was started and not collected."""
        return bool(self._reading)

    def __contains__(self, lora: LoRARequest) -> bool:
        return lora in self._reading

    def start(self, lora: LoRARequest) -> None:
        """Read it, if that is not being done."""
        if lora not in self._reading:
            self._reading.add(lora)
            threading.Thread(
                target=self._run, args=(lora,), name="ingot-adapter", daemon=True
            ).start()

    def collect(self, seconds: float = 0.0) -> list[ReadAdapter]:
        """What has been read, after waiting so long at most for the first."""
        found: list[ReadAdapter] = []
        while len(found) < len(self._reading):
            try:
                found.append(self._done.get(timeout=0.0 if found else seconds))
            except Empty:
                break
        self._reading.difference_update(each.lora for each in found)
        return found

    def _run(self, lora: LoRARequest) -> None:
        try:
            read = ReadAdapter(lora, self._read(lora))
        except ModelError as error:
            read = ReadAdapter(lora, error=str(error))
        except Exception as error:  # one adapter's failure, whatever it is, is that one's alone
            logger.exception("an adapter could not be read")
            name, kind = lora.lora_name[:100], type(error).__name__
            read = ReadAdapter(lora, error=f"Adapter {name!r} cannot be read ({kind}: {error}).")
        self._done.put(read)
