"""Which pages hold what: a prompt that begins as an earlier one does is not computed again.

A page's key (`engine.page_key`) stands for all tokens up to its end, so the map from keys to pages
is a tree whose edges are pages, and the longest match is found by walking keys until one is
missing.

A request's pages lose their owners together, the last page first, so the page that was without
an owner for longest is always a leaf of that tree: the pool gives it away first, and no page is
left whose beginning is gone. With a host tier its content goes there, and is found there.

Owns keys and contents. Pages and their owners are `BlockPool`'s; devices and requests are unknown.
"""

from collections.abc import Sequence

from engine.block_pool import BlockPool
from engine.host_tier import HostPage, HostTier
from engine.page_key import PageKey

Known = int | HostPage  # a page of the device, or a content in the host


class PrefixCache:
    """Finds pages by what they hold."""

    def __init__(self, pool: BlockPool, tier: HostTier | None = None) -> None:
        self._pool = pool
        self._tier = tier
        self._pages: dict[bytes, int] = {}
        self._keys: dict[int, PageKey] = {}
        pool.on_reuse = self._give_away

    def __len__(self) -> int:
        return len(self._pages)

    def match(self, keys: Sequence[PageKey]) -> list[Known]:
        """The pages of the longest beginning of `keys` that is here, or in the host."""
        known: list[Known] = []
        for key in keys:
            found = self._find(key)
            if found is None:
                break
            known.append(found)
        return known

    def bring(self, known: Sequence[Known]) -> list[int]:
        """Pages of the device for what was matched: contents in the host get new ones.

        The caller owns those that were the device's already, and the pool has room for the others.
        """
        hosts = [each for each in known if isinstance(each, HostPage)]
        fresh = iter(self._pool.allocate(len(hosts)) or [])
        pages = [each if isinstance(each, int) else next(fresh) for each in known]
        for each, page in zip(known, pages, strict=True):
            if self._tier is not None and isinstance(each, HostPage):
                self._tier.fetch(each, page)
                self.insert(each.key, page)
        if self._tier is not None:
            self._tier.touch(hosts)
        return pages

    def insert(self, key: PageKey, page: int) -> None:
        """`page`, which has an owner, holds this. A second page of the same tokens is not kept."""
        if key.digest not in self._pages:
            self._pages[key.digest] = page
            self._keys[page] = key
            self._pool.keep(page)

    def discard(self, page: int) -> None:
        """`page`, which has an owner, does not hold what it was said to."""
        if page in self._keys:
            self._forget(page)
            self._pool.unkeep(page)

    def clear(self) -> None:
        """Forget all contents; pages without owners are free."""
        for page in list(self._keys):
            self.discard(page)
        if self._tier is not None:
            self._tier.clear()

    def _find(self, key: PageKey) -> Known | None:
        page = self._pages.get(key.digest)
        if page is not None:
            return page if self._keys[page].tokens == key.tokens else None
        return self._tier.find(key) if self._tier is not None else None

    def _give_away(self, page: int) -> None:
        """The pool hands an idle page to somebody who will write it."""
        key = self._forget(page)
        if self._tier is not None:
            self._tier.store(key, page)

    def _forget(self, page: int) -> PageKey:
        key = self._keys.pop(page)
        del self._pages[key.digest]
        return key
