"""Which adapter has which of the places that a step computes with, and who must wait for one.

    take ──> in use by running requests ──> idle, and found again ──> given to another, the one that
                                                                      was idle for longest first

Owns who has a slot. Knows neither files nor devices.
"""

from collections import Counter
from collections.abc import Callable

from engine.adapters.request import LoRARequest

NO_ADAPTER = -1  # the slot of a request without one


class AdapterSlots:
    """`count` slots; one in use is never given to another. `is_here` tells whether an adapter can
    be copied into one, and has it read if not."""

    def __init__(self, count: int, is_here: Callable[[LoRARequest], bool]) -> None:
        self._is_here = is_here
        self._free = list(range(count))
        self._slots: dict[LoRARequest, int] = {}  # who was taken last comes last
        self._users: Counter[LoRARequest] = Counter()  # running requests
        self._held_up = False
        self.due: dict[int, LoRARequest] = {}  # what is to be copied there before the next step

    def begin_step(self) -> None:
        """Another step is planned from now on."""
        self._held_up = False

    def holds_up(self, lora: LoRARequest | None) -> bool:
        """Whether a request has to wait for a slot of its adapter, or for another that does: who
        has an adapter passes nobody who waits for a slot, or these might never get theirs. Who
        waits until an adapter is read may be passed."""
        if lora is None or self._held_up:
            return lora is not None
        if lora in self._slots:
            return False
        self._held_up = not self._free and self._idle() is None
        return self._held_up or not self._is_here(lora)

    def take(self, lora: LoRARequest | None) -> int:
        """The slot of one more running request, if it has an adapter."""
        if lora is None:
            return NO_ADAPTER
        slot = self._slots.pop(lora, None)
        if slot is None:
            slot = self._new_slot(lora)
        self._slots[lora] = slot
        self._users[lora] += 1
        return slot

    def _new_slot(self, lora: LoRARequest) -> int:
        """A slot for an adapter that has none, into which it is to be copied."""
        if not self._free and (idle := self._idle()) is not None:
            self._free.append(self._slots.pop(idle))
            del self._users[idle]
        if not self._free:
            raise RuntimeError("all adapters are in use")
        slot = self._free.pop(0)
        self.due[slot] = lora
        return slot

    def release(self, lora: LoRARequest | None) -> None:
        """A request has stopped to run."""
        if lora is not None:
            self._users[lora] -= 1

    def forget(self) -> None:
        """The slots hold nothing any more, and nobody runs."""
        self._free = sorted([*self._free, *self._slots.values()])
        self._slots.clear()
        self._users.clear()
        self.due.clear()

    def _idle(self) -> LoRARequest | None:
        return next((each for each in self._slots if not self._users[each]), None)
