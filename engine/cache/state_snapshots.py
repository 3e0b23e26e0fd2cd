"""States that were kept at borders of pages: which beginnings of prompts have one, and where.

    pages of a prompt   | p0 | p1 | p2 | p3 | ..      found by their keys in the prefix cache
    states              |    |    s7   |    s9        in slots 7 and 9 of every layer

A page is good for nothing without the state behind the last page before what is computed, and a
state is as large as thousands of tokens in pages. So few are kept of each prompt: where its pages
end, and where it parted from an earlier prompt, for others will part there too.

Owns the slots and which goes first when there is no room. Pages are `PrefixCache`'s, and the copies
themselves are made in the step that computes the tokens before the border.
"""

from collections import OrderedDict
from collections.abc import Sequence

from engine.cache.page_key import PageKey


class StateSnapshots:
    """`count` slots, from `first` on."""

    def __init__(self, first: int, count: int) -> None:
        self._free = list(range(first + count - 1, first - 1, -1))
        self._slots: OrderedDict[bytes, int] = OrderedDict()  # the least recently wanted first
        self._used: set[bytes] = set()  # by the step that is being planned: stay as they are
        self._unmade: set[bytes] = set()  # of these, what that step writes

    def __len__(self) -> int:
        return len(self._slots)

    def begin_step(self) -> None:
        """A new step is planned; what the last one kept can be read."""
        self._used.clear()
        self._unmade.clear()

    def longest(self, keys: Sequence[PageKey]) -> int:
        """How many of these leading pages end where a state is."""
        for count in range(len(keys), 0, -1):
            digest = keys[count - 1].digest
            if digest in self._slots and digest not in self._unmade:
                return count
        return 0

    def read(self, key: PageKey) -> int:
        """The slot of the state behind this page, from which the step begins a row."""
        self._slots.move_to_end(key.digest)
        self._used.add(key.digest)
        return self._slots[key.digest]

    def keep(self, key: PageKey) -> int | None:
        """A slot for the state behind this page, which the step computes; None if it is kept
        already, or all slots are needed in this step."""
        if key.digest in self._slots:
            self._slots.move_to_end(key.digest)
            return None
        slot = self._free.pop() if self._free else self._give_away()
        if slot is not None:
            self._slots[key.digest] = slot
            self._used.add(key.digest)
            self._unmade.add(key.digest)
        return slot

    def discard(self, slot: int) -> None:
        """The step that was to write this slot was not computed."""
        for digest, kept in self._slots.items():
            if kept == slot:
                del self._slots[digest]
                self._free.append(slot)
                return

    def clear(self) -> None:
        """Forget all of them."""
        self._free += self._slots.values()
        self._slots.clear()

    def _give_away(self) -> int | None:
        oldest = next((digest for digest in self._slots if digest not in self._used), None)
        return None if oldest is None else self._slots.pop(oldest)
