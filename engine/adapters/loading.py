"""Adapters from their folders into the slots of a running model.

    folder ──read in a thread──> host's memory ──copied between two steps──> slot of the devices

The host keeps the adapters that were asked for last; others are read again while their requests
wait, and no other does. A copy is compiled once, for all adapters and slots. Owns when files are
read and arrays copied. Who has which slot is `slots.py`'s, the threads are `reader.py`'s.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, Int32

from engine.adapters.reader import AdapterReader, Arrays, ReadAdapter
from engine.adapters.request import LoRARequest
from engine.adapters.slots import AdapterSlots
from engine.config import EngineConfig
from engine.errors import RequestError
from engine.messages import Answer, RequestDelta
from engine.model_files import adapter_path
from engine.runner import Runner
from engine.scheduling.scheduler import Scheduler
from models.checkpoints.adapter_files import read_adapter
from models.checkpoints.loading import LoadedModel
from models.errors import CheckpointError, ModelError
from models.layers.lora import AdaptedModel, with_adapters
from models.sharding import named_sharding

MAX_KNOWN = 4096  # adapters of which it is remembered that they could be read


class Adapters:
    """Those of one engine, whose model is `model`."""

    def __init__(self, adapted: AdaptedModel, kept: int) -> None:
        self.model = adapted.model
        self.slots = AdapterSlots(adapted.slots, self._is_here)
        self._adapted, self._kept = adapted, kept
        self._host: dict[LoRARequest, Arrays] = {}  # who was asked for last comes last
        self._known: dict[LoRARequest, None] = {}  # the newest last
        self._reader = AdapterReader(self._read)
        self._loads: dict[LoRARequest, list[int]] = {}  # who is to hear of it
        self._answers: list[Answer] = []
        self._wanted: LoRARequest | None = None  # read for requests that wait, one at a time
        self._copy: Any = _compiled_copy(adapted)

    def check(self, lora: LoRARequest) -> None:
        """Read an adapter that is not known yet, at once; raises as `read_adapter`."""
        if lora not in self._known:
            self._keep(lora, self._read(lora))

    def load(self, call_id: int, lora: LoRARequest) -> None:
        """Read an adapter by and by; `settle` answers."""
        self._loads.setdefault(lora, []).append(call_id)
        self._reader.start(lora)

    @property
    def loading(self) -> bool:
        """Whether somebody is to be answered."""
        return bool(self._loads)

    @property
    def reading(self) -> bool:
        """Whether `settle` would have something to wait for."""
        return self._reader.busy

    def take_answers(self) -> list[Answer]:
        """What there is to say to those who asked with `load`."""
        answers, self._answers = self._answers, []
        return answers

    def settle(self, scheduler: Scheduler, seconds: float = 0.0) -> list[RequestDelta]:
        """Keep what has been read, after waiting so long at most for the first; returns the ends
        of requests whose adapter cannot be."""
        ended: list[RequestDelta] = []
        for read in self._reader.collect(seconds):
            if read.error is None:
                self._keep(read.lora, read.arrays)
            else:
                self._known.pop(read.lora, None)
                ended += _end_waiting(scheduler, read)
            call_ids = self._loads.pop(read.lora, [])
            self._answers += [Answer(call_id, read.error, "lora_path") for call_id in call_ids]
        return ended

    def with_room(self, model: LoadedModel) -> tuple[Array, ...]:
        """The leaves of `model`, read anew, and the same room for adapters, which is empty; nobody
        runs."""
        self.slots.forget()
        return with_adapters(model, self._adapted.slots, self._adapted.rank).model.leaves

    def bring(self, runner: Runner) -> None:
        """Copy the adapters that the next step needs."""
        due = self.slots.due
        while due:
            slot, lora = next(iter(due.items()))
            self._host[lora] = arrays = self._host.pop(lora)
            runner.leaves = self._put(runner.leaves, slot, arrays)
            del due[slot]

    def _put(self, leaves: tuple[Array, ...], slot: int, arrays: Arrays) -> tuple[Array, ...]:
        numbers, changed = self._adapted.numbers, list(leaves)
        held = tuple(leaves[number] for number in numbers)
        for number, leaf in zip(numbers, self._copy(held, np.int32(slot), arrays), strict=True):
            changed[number] = leaf
        return tuple(changed)

    def _is_here(self, lora: LoRARequest) -> bool:
        """Whether it can be copied; if not, it is read next."""
        if lora in self._host:
            return True
        if self._wanted is None or self._wanted not in self._reader:
            self._wanted = lora
            self._reader.start(lora)
        return False

    def _keep(self, lora: LoRARequest, arrays: Arrays) -> None:
        self._known[lora] = None
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._host[lora] = arrays
        due = set(self.slots.due.values())  # an interrupted step comes again
        idle = [each for each in self._host if each not in due]
        for each in idle[: max(0, len(self._host) - self._kept)]:
            del self._host[each]

    def _read(self, lora: LoRARequest) -> Arrays:
        try:
            folder = Path(os.path.expanduser(adapter_path(lora.lora_path)))
            return read_adapter(folder, self._adapted)
        except OSError as error:  # a folder that nobody may look into, or no name for one
            raise CheckpointError(
                f"Cannot read adapter {lora.lora_name[:100]!r} at {lora.lora_path[:100]}: "
                f"{error.strerror}."
            ) from None


def make_adapters(config: EngineConfig, model: LoadedModel) -> Adapters | None:
    """Room for adapters beside `model`, if it was asked for; all that are named are read once.

    Raises:
        ModelError: the model has no place for adapters, or one that is named is not for it.
    """
    if not config.enable_lora:
        return None
    adapted = with_adapters(model, config.max_loras, config.max_lora_rank)
    adapters = Adapters(adapted, config.max_cpu_loras or config.max_loras)
    for lora in config.lora_modules:
        adapters.check(lora)
    return adapters


def check_enabled(adapters: Adapters | None) -> Adapters:
    """The engine's; raises RequestError where it has room for none."""
    if adapters is None:
        raise RequestError("This engine was started without --enable-lora.", "lora_request")
    return adapters


def check_adapter(adapters: Adapters | None, lora: LoRARequest) -> None:
    """Read an adapter that is not known yet; raises RequestError saying why it cannot be."""
    try:
        check_enabled(adapters).check(lora)
    except ModelError as error:
        raise RequestError(str(error), "lora_request") from None


def _end_waiting(scheduler: Scheduler, read: ReadAdapter) -> list[RequestDelta]:
    """End the requests that wait for an adapter; none runs with it, for it was not copied."""
    ended = [request for request in scheduler.waiting.all() if request.lora == read.lora]
    for request in ended:
        scheduler.finish(request)
    return [
        RequestDelta(request_id=request.request_id, finish_reason="error", error=read.error)
        for request in ended
    ]


def _compiled_copy(adapted: AdaptedModel) -> Any:
    """`_copy` for the shapes of this model, which never has to be compiled again."""
    leaves = [adapted.model.layout.leaves[number] for number in adapted.numbers]
    shardings = [named_sharding(adapted.model.mesh, leaf.axes) for leaf in leaves]
    held, given = [], []
    for place, (leaf, sharding) in enumerate(zip(leaves, shardings, strict=True)):
        one = list(leaf.shape)
        one[_slot_axis(place)] //= adapted.slots
        held.append(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding))
        given.append(jax.ShapeDtypeStruct(tuple(one), leaf.dtype, sharding=sharding))
    slot = jax.ShapeDtypeStruct((), np.int32)
    jitted = jax.jit(_copy, donate_argnums=0, out_shardings=tuple(shardings))
    return jitted.lower(tuple(held), slot, tuple(given)).compile()


def _copy(
    held: Sequence[Array], slot: Int32[Array, ""], given: Sequence[Array]
) -> tuple[Array, ...]:
    """A and B of one adapter after the other, each into its slot of those that are held."""
    changed = []
    for place, (all_slots, one) in enumerate(zip(held, given, strict=True)):
        axis = _slot_axis(place)
        start = slot * one.shape[axis]
        changed.append(lax.dynamic_update_slice_in_dim(all_slots, one, start, axis))
    return tuple(changed)


def _slot_axis(place: int) -> int:
    """Along which the slots lie: the columns of A, the rows of B."""
    return 1 - place % 2
