"""Pages of the KV cache: which are free, and how many owners each of the others has.

    free ── allocate ──> owned ── release ──> free
                           │  ^                          a page is kept if it holds what may be
                  release  v  │ share                    wanted again
                          idle ── allocate, when no page is free ──> owned, its content gone

Owns reference counts and the order in which idle pages are given away, and nothing else: it does
not know requests, tokens or devices. Page 0 is never handed out; padding reads it.
"""

from collections import OrderedDict
from collections.abc import Callable

from engine.cache.page_map import PageMap, draw
from engine.cache.page_residency import PageResidency


class BlockPool:
    """`num_pages` pages in all, of which page 0 is the sink."""

    def __init__(self, num_pages: int, residency: PageResidency | None = None) -> None:
        if num_pages < 2:
            raise ValueError(f"a pool needs the sink and at least one page, got {num_pages}")
        self.num_pages = num_pages
        self._residency = residency
        self.on_reuse: Callable[[int], None] = lambda page: None  # told of idle pages given away
        self._free = list(range(num_pages - 1, 0, -1))  # popped from the end: 1, 2, 3, ...
        self._idle: OrderedDict[int, None] = OrderedDict()  # kept, without owners; oldest first
        self._kept = [False] * num_pages
        self._owners = [0] * num_pages

    @property
    def num_free(self) -> int:
        """Pages that can be allocated, idle ones included."""
        return len(self._free) + len(self._idle)

    @property
    def num_idle(self) -> int:
        """Pages that are kept and have no owner."""
        return len(self._idle)

    @property
    def capacity(self) -> int:
        """Pages that can be owned at once."""
        return self.num_pages - 1

    def allocate(self, count: int) -> list[int] | None:
        """`count` pages with one owner each, or None, and no page taken, if there are fewer."""
        if count > self.num_free:
            return None
        return [self._take() for _ in range(count)]

    def share(self, pages: list[int]) -> None:
        """One more owner for each of these pages, which are owned or idle."""
        for page in pages:
            if page in self._idle:
                del self._idle[page]
            else:
                self._check_owned(page)
            self._owners[page] += 1

    def accessed(self, pages: list[int]) -> None:
        """A request begins with these."""
        if self._residency is not None:
            for page in pages:
                self._residency.accessed(page)

    def release(self, pages: list[int]) -> None:
        """One owner fewer for each, the last first; pages without owners are idle or free."""
        for page in reversed(pages):
            self._check_owned(page)
            self._owners[page] -= 1
            if self._owners[page] == 0:
                self._rest(page)

    def keep(self, page: int) -> None:
        """What this owned page holds is worth keeping when its owners have gone."""
        self._check_owned(page)
        self._kept[page] = True

    def unkeep(self, page: int) -> None:
        """What it holds is worth nothing; if it was idle, it is free."""
        self._kept[page] = False
        if page in self._idle:
            del self._idle[page]
            self._free.append(page)

    def touch(self, page: int) -> None:
        """If it is idle, it is given away as if it had lost its last owner now."""
        if page in self._idle:
            self._idle.move_to_end(page)

    def owners(self, page: int) -> int:
        return self._owners[page]

    def map(self) -> PageMap:
        """Which pages are owned, shared and idle."""
        return draw(self._owners, self._idle)

    def _take(self) -> int:
        if self._free:
            page = self._free.pop()
        else:
            page, _ = self._idle.popitem(last=False)
            self._kept[page] = False
            self.on_reuse(page)
            if self._residency is not None:
                self._residency.evicted(page)
        if self._residency is not None:
            self._residency.allocated(page)
        self._owners[page] = 1
        return page

    def _rest(self, page: int) -> None:
        if self._kept[page]:
            self._idle[page] = None
        else:
            self._free.append(page)

    def _check_owned(self, page: int) -> None:
        if not 0 < page < self.num_pages or self._owners[page] == 0:
            raise ValueError(f"page {page} has no owner")
