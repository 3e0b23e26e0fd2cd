"""What lies on the devices, let go of and brought back while the engine lives.

    weights    resident ──> offloaded, in the host's memory ──> resident
                       └──> discarded ──────── read anew ─────> resident
    KV cache   resident ──> discarded ───────────── empty ────> resident     and all other state

Weights of another checkpoint take the place of those that there are, which lie in the host's memory
until that is done, so that nothing is lost where it fails.

What is asked for is done once no step is under way; no step begins before all is resident. Programs
stay as they are, so nothing is compiled for it. Requests stay, too: they begin again, and what they
have said stays said. Owns what is where. Knows not who asks, nor why.
"""

from collections import deque
from contextlib import AbstractContextManager

import jax
import numpy as np
from jaxtyping import Array

from engine.compiling.memory import GIB, raising_without_room
from engine.errors import RequestError
from engine.messages import (
    FIRST_WEIGHTS,
    Answer,
    CacheState,
    MemoryChange,
    ReadWeights,
    Release,
    Restore,
    WeightsState,
)
from engine.model_reading import WeightReader
from engine.runner import Runner
from engine.scheduling.scheduler import Scheduler
from models.checkpoints.memory import host_free_bytes
from models.errors import IngotError
from models.sharding import is_cpu


class Residence:
    """Of one engine's weights and cache."""

    def __init__(self, runner: Runner, scheduler: Scheduler, reader: WeightReader) -> None:
        self.weights: WeightsState = "resident"
        self.kv_cache: CacheState = "resident"
        self.version = FIRST_WEIGHTS
        self._runner, self._scheduler, self._reader = runner, scheduler, reader
        self._shardings = [leaf.sharding for leaf in runner.leaves]
        self._on_cpu = is_cpu(reader.mesh)
        self._host: list[np.ndarray] = []  # weights that are offloaded
        self._asked: deque[MemoryChange] = deque()
        self._answers: list[Answer] = []

    @property
    def due(self) -> bool:
        """Whether something is to be done between two steps."""
        return bool(self._asked)

    @property
    def complete(self) -> bool:
        """Whether steps can run."""
        return not self._asked and self.weights == self.kv_cache == "resident"

    def ask(self, message: MemoryChange) -> None:
        """Have something done soon; `take_answers` tells of it."""
        self._asked.append(message)

    def close(self) -> None:
        """Give the host's memory back."""
        self._host = []

    def take_answers(self) -> list[Answer]:
        """What there is to say to those who asked."""
        answers, self._answers = self._answers, []
        return answers

    def act(self) -> None:
        """Do what was asked for; no step is under way."""
        while self._asked:
            message = self._asked.popleft()
            try:
                self._do(message)
            except (IngotError, OSError) as error:
                self._answers.append(Answer(message.call_id, str(error)))
            else:
                self._answers.append(Answer(message.call_id))

    def _do(self, message: MemoryChange) -> None:
        match message:
            case Release():
                self._release(message)
            case Restore():
                self._restore(weights=message.weights, kv_cache=message.kv_cache)
            case ReadWeights():
                self._replace(message)

    def _release(self, wanted: Release) -> None:
        if wanted.weights == "offloaded":
            self._check_host()
        if wanted.kv_cache == "discarded":
            self._drop_cache(host=wanted.weights == "discarded")
        if wanted.weights == "offloaded":
            self._offload()
        elif wanted.weights == "discarded":
            self._host = []
            self._drop_weights("discarded")

    def _replace(self, wanted: ReadWeights) -> None:
        """All that was computed is of no use; what lay where before lies there afterwards."""
        weights, cache = self.weights == "resident", self.kv_cache == "resident"

        def make_room() -> None:
            self._check_host()
            self._drop_cache(host=True)
            self._offload()

        try:
            with _room("weights"):
                leaves = self._reader.read_other(wanted.path, wanted.load_format, make_room)
        except BaseException:
            self._restore(weights=weights, kv_cache=cache)
            raise
        self._runner.leaves, self._host, self.weights = leaves, [], "resident"
        self.version = wanted.version or self.version
        self._restore(weights=True, kv_cache=cache)

    def _restore(self, *, weights: bool, kv_cache: bool) -> None:
        if weights and self.weights != "resident":
            with _room("weights"):
                offloaded = self.weights == "offloaded"
                self._runner.leaves = self._bring() if offloaded else self._reader.read_again()
            self._host, self.weights = [], "resident"
        if kv_cache and self.kv_cache != "resident":
            with _room("KV cache"):
                self._runner.make_state()
            self.kv_cache = "resident"

    def _bring(self) -> tuple[Array, ...]:
        """The weights as they were, from the host's memory."""
        brought = jax.device_put(self._host, self._shardings)
        return tuple(jax.block_until_ready(brought))

    def _check_host(self) -> None:
        """Raise RequestError where the host's memory cannot take the weights; a CPU's are there."""
        free, needed = host_free_bytes(), sum(leaf.nbytes for leaf in self._runner.leaves)
        elsewhere = not self._on_cpu and self.weights == "resident"
        if elsewhere and free is not None and free < needed:
            raise RequestError(
                f"The weights take {needed / GIB:.1f} GiB and the host has {free / GIB:.1f} GiB of "
                "memory free; sleep at level 2, which drops them: they, or others, are read again."
            )

    def _offload(self) -> None:
        if self.weights == "resident":
            self._host = [np.asarray(leaf) for leaf in self._runner.leaves]
            self._drop_weights("offloaded")

    def _drop_weights(self, state: WeightsState) -> None:
        for leaf in self._runner.leaves:
            leaf.delete()
        self.weights = state

    def _drop_cache(self, *, host: bool) -> None:
        """Requests that run give their pages back first, and nothing is found again that was in
        any; what the host's memory keeps of them neither, if `host`."""
        self._scheduler.retract()
        self._scheduler.reset_prefix_cache(host=host)
        if self.kv_cache == "resident":
            self._runner.drop_state()
            self.kv_cache = "discarded"


def _room(what: str) -> AbstractContextManager[None]:
    """Raises RequestError where the devices have none."""
    return raising_without_room(
        RequestError(
            f"The devices have no room for the {what}; whoever took their memory must give it back "
            "first."
        )
    )
