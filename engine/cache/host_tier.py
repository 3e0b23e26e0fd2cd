"""Pages that the device had no room to keep, in the host's memory (`--kv-offloading-size`).

    prefix cache ── a page is given away ──> store ─┐                      ┌─> content in the host
                                                    ├─ copies, in order ───┤
    prefix cache <── found by its key ────── fetch ─┘                      └─> a page of the device

Owns which keys are here, which go first when there is no room, and the list of copies that are due
before the next step. What a content is, how it travels, and how many may at a time, is
`engine.cache.page_copies`'s to know. A content stays here while the device has it too, and need
not be copied twice.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from engine.cache.page_key import PageKey

COPY_BATCH = 8  # pages that travel together
STAGED_BATCHES = 8  # at most under way, each way
STAGED_PAGES = 2 * STAGED_BATCHES * COPY_BATCH  # memory of the device that this takes, in pages


class HostPage:
    """The content of one page, from the moment its copy is due."""

    __slots__ = ("content", "dropped", "fetched", "key")

    def __init__(self, key: PageKey) -> None:
        self.key = key
        self.dropped = self.fetched = False
        self.content: Any = None  # until the copy has been started

    @property
    def wanted(self) -> bool:
        """Whether it is worth copying to the host."""
        return self.fetched or not self.dropped


class Copy(NamedTuple):
    """To the host from the device's `page`, or the other way."""

    host: HostPage
    page: int
    to_host: bool


class HostTier:
    """Room for `capacity` pages; the one that was wanted least recently goes first."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a tier needs room for a page, got {capacity}")
        self.capacity = capacity
        self.copies: list[Copy] = []  # due, in this order; whoever makes them empties the list
        self.room: Callable[[], int] = lambda: capacity  # contents that can be fetched right now
        self._pages: OrderedDict[bytes, HostPage] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pages)

    def find(self, key: PageKey) -> HostPage | None:
        """What holds these tokens, and all before them."""
        found = self._pages.get(key.digest)
        return found if found is not None and found.key.tokens == key.tokens else None

    def store(self, key: PageKey, page: int) -> None:
        """The device's `page` holds this, and will be written by the next step."""
        if key.digest in self._pages:
            self._pages.move_to_end(key.digest)
            return
        host = self._pages[key.digest] = HostPage(key)
        self.copies.append(Copy(host, page, to_host=True))
        if len(self._pages) > self.capacity:
            _, oldest = self._pages.popitem(last=False)
            oldest.dropped = True

    def drop(self, host: HostPage) -> None:
        """It will not be copied to the host."""
        host.dropped = True
        if self._pages.get(host.key.digest) is host:
            del self._pages[host.key.digest]

    def fetch(self, host: HostPage, page: int) -> None:
        """The next step reads this in the device's `page`; it may have been dropped since."""
        host.fetched = True
        self.copies.append(Copy(host, page, to_host=False))

    def touch(self, hosts: Sequence[HostPage]) -> None:
        """These, which follow one another, were wanted: a beginning is kept longer than its end."""
        for host in reversed(hosts):
            if self._pages.get(host.key.digest) is host:
                self._pages.move_to_end(host.key.digest)

    def clear(self) -> None:
        """Forget all contents; copies that are due are still made."""
        self._pages.clear()
