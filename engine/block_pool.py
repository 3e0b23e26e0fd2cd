"""Pages of the KV cache: which are free, and how many owners each of the others has.

Owns reference counts and nothing else: it does not know requests, tokens or devices. Page 0 is
never handed out; padding reads it.
"""


class BlockPool:
    """`num_pages` pages in all, of which page 0 is the sink."""

    def __init__(self, num_pages: int) -> None:
        if num_pages < 2:
            raise ValueError(f"a pool needs the sink and at least one page, got {num_pages}")
        self.num_pages = num_pages
        self._free = list(range(num_pages - 1, 0, -1))  # popped from the end: 1, 2, 3, ...
        self._owners = [0] * num_pages

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def capacity(self) -> int:
        """Pages that can be owned at once."""
        return self.num_pages - 1

    def allocate(self, count: int) -> list[int] | None:
        """`count` pages with one owner each, or None, and no page taken, if there are fewer."""
        if count > len(self._free):
            return None
        pages = [self._free.pop() for _ in range(count)]
        for page in pages:
            self._owners[page] = 1
        return pages

    def share(self, pages: list[int]) -> None:
        """One more owner for each of these owned pages."""
        for page in pages:
            self._check_owned(page)
            self._owners[page] += 1

    def release(self, pages: list[int]) -> None:
        """One owner fewer for each; pages without owners are free again."""
        for page in reversed(pages):
            self._check_owned(page)
            self._owners[page] -= 1
            if self._owners[page] == 0:
                self._free.append(page)

    def owners(self, page: int) -> int:
        return self._owners[page]

    def _check_owned(self, page: int) -> None:
        if not 0 < page < self.num_pages or self._owners[page] == 0:
            raise ValueError(f"page {page} has no owner")
