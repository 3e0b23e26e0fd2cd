"""An engine that writes a fixed text: what is left to measure is the front.

It has as many rows as there are requests, or `--max-num-seqs`; a step takes `INGOT_SCRIPTED_STEP`
seconds, or no time at all. The server before it is `scripted_server.py`'s.
"""

import os
import time
from collections import deque
from collections.abc import Iterable
from itertools import cycle, islice

from engine.adapters.request import LoRARequest
from engine.config import EngineConfig
from engine.errors import RequestError
from engine.messages import (
    AddRequest,
    EngineStats,
    MemoryChange,
    ModelInfo,
    RequestDelta,
    StepReport,
)
from engine.tokenizers.tokenizer import Tokenizer
from models.checkpoints.checkpoint import find_folder

STEP_VARIABLE = "INGOT_SCRIPTED_STEP"
_TEXT = "Once upon a time there was a little dog who lived in a big house by the sea. "
_CONTEXT = 1 << 20


class ScriptedCore:
    """An engine core without a model: every request gets the same tokens, one a step."""

    def __init__(self, config: EngineConfig) -> None:
        tokenizer = Tokenizer.load(find_folder(config.model))
        if tokenizer is None:
            raise ValueError("the script is written in a model's tokens")
        self._script = list(islice(cycle(tokenizer.encode(_TEXT)), 4096))
        self._step_seconds = float(os.environ.get(STEP_VARIABLE, "0"))
        self._rows = config.max_num_seqs or 1 << 16
        self._running: dict[int, list[int]] = {}  # tokens that were written, and that are wanted
        self._waiting: deque[AddRequest] = deque()
        self._stats = EngineStats()
        self.info = ModelInfo(
            architecture="Scripted", vocab_size=tokenizer.vocab_size,
            max_model_len=config.asked_model_len or _CONTEXT,
            num_parameters=0, eos_token_ids=[], max_num_seqs=self._rows, num_pages=1,
            page_size=16, load_seconds=0.0, compile_seconds=0.0,
        )  # fmt: skip

    @property
    def has_work(self) -> bool:
        return bool(self._running or self._waiting)

    def add(self, request: AddRequest, arrival: int | None = None) -> int:
        self._waiting.append(request)
        return arrival or 0

    def reset_prefix_cache(self) -> None:
        """There is none."""

    def freeze(self, *, retract: bool) -> None:
        """A benchmark is not paused."""

    def thaw(self) -> None:
        """Nor does it go on."""

    def load_adapter(self, call_id: int, lora: LoRARequest) -> None:
        """Raises RequestError: there is nothing to compute with it."""
        raise RequestError("This engine has no adapters.", "lora_name")

    def change_memory(self, message: MemoryChange) -> None:
        """Raises RequestError: there is none."""
        raise RequestError("This engine has no memory to let go of.", "level")

    def page_map(self) -> None:
        """There is no cache."""

    def abort(self, request_ids: Iterable[int]) -> None:
        gone = set(request_ids)
        for request_id in gone:
            self._running.pop(request_id, None)
        self._waiting = deque(each for each in self._waiting if each.request_id not in gone)

    def step(self) -> StepReport:
        time.sleep(self._step_seconds)
        while self._waiting and len(self._running) < self._rows:
            request = self._waiting.popleft()
            self._running[request.request_id] = [0, request.params.max_tokens or _CONTEXT]
        deltas = [self._advance(each) for each in list(self._running)]
        self._stats.num_running, self._stats.num_waiting = len(self._running), len(self._waiting)
        self._stats.num_steps += bool(deltas)
        self._stats.generation_tokens += len(deltas)
        return StepReport(deltas=deltas, stats=self._stats)

    def close(self) -> None:
        self._running.clear()

    def _advance(self, request_id: int) -> RequestDelta:
        row = self._running[request_id]
        token = self._script[row[0] % len(self._script)]
        row[0] += 1
        delta = RequestDelta(request_id=request_id, new_token_ids=[token])
        if row[0] >= row[1]:
            delta.finish_reason = "length"
            del self._running[request_id]
        return delta
