"""Which pages hold what: a prompt that begins as an earlier one does is not computed again.

A page's key (`engine.cache.page_key`) stands for all tokens up to its end, so the map from keys to
pages is a tree whose edges are pages, and the longest match is found by walking keys until one
is missing.

A request's pages lose their owners together, the last page first, so the page that was without
an owner for longest is always a leaf of that tree: the pool gives it away first, and no page is
left whose beginning is gone. With a host tier its content goes there, and is found there.

Two requests that compute the same page at the same time both have it, and the tree has the first.
What the second puts behind it needs it as well: when its request gives its pages back, the first
counts as used, and if it is gone the second takes its place.

Behind the last whole page that is found, a page may begin as the text goes on. Nobody can share it
as it is: it is copied, or, if it is not full and nobody has it, continued by whoever found it.

Owns keys and contents. Pages and their owners are `BlockPool`'s; devices and requests are unknown.
"""

import bisect
from collections.abc import Sequence
from typing import NamedTuple

from engine.cache.block_pool import BlockPool
from engine.cache.continuations import Continuations
from engine.cache.host_tier import HostPage, HostTier
from engine.cache.page_key import PageKey, as_bytes

Known = int | HostPage  # a page of the device, or a content in the host


class Part(NamedTuple):
    """A page whose first `num_tokens` are wanted; `idle` if nothing else of it ever will be."""

    page: int
    num_tokens: int
    idle: bool


class PrefixCache:
    """Finds pages by what they hold."""

    def __init__(self, pool: BlockPool, tier: HostTier | None = None) -> None:
        self._pool = pool
        self._tier = tier
        self._pages: dict[bytes, int] = {}
        self._keys: dict[int, PageKey] = {}
        self._continuations = Continuations()
        self._written: dict[int, int] = {}  # tokens in pages that the planned step goes on with
        pool.on_reuse = self._give_away

    def match(self, keys: Sequence[PageKey]) -> list[Known]:
        """The pages of the longest beginning of `keys` that is here, or in the host."""
        known: list[Known] = []
        for key in keys:
            found = self._find(key)
            if found is None:
                break
            known.append(found)
        return known

    def num_known(self, keys: Sequence[PageKey], most: int) -> int:
        """How many pages `match` finds of the first `most`, in steps of halves: a page is here if
        one after it is."""
        return bisect.bisect_left(keys, True, hi=most, key=lambda key: self._find(key) is None)

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
            self._continue(page, key.before, key.tokens)

    def insert_chain(
        self, keys: Sequence[PageKey], pages: Sequence[int], start: int, num_found: int
    ) -> None:
        """`pages`, which have an owner, hold these from page `start` on; and those before it, but
        for the `num_found` that others had computed, where the tree has lost the same page."""
        while start > num_found and keys[start - 1].digest not in self._pages:
            start -= 1
        for place in range(start, len(keys)):
            self.insert(keys[place], pages[place])

    def release(self, keys: Sequence[PageKey], pages: list[int], num_found: int) -> None:
        """An owner of `pages` goes, the first of which hold `keys`."""
        for place in range(num_found, len(keys)):
            self.insert(keys[place], pages[place])
        self._pool.release(pages)
        known = [self._pages.get(key.digest, page) for key, page in zip(keys, pages, strict=False)]
        if known != pages[: len(keys)]:
            for page in reversed(known):
                self._pool.touch(page)

    def fetch_some(self, known: Sequence[Known], num_reserved: int) -> bool:
        """Whether what was matched can all be here in the next step without anybody waiting for it;
        if not, its beginning is brought as far as it can, and stays unless pages are needed."""
        hosts = [place for place, each in enumerate(known) if isinstance(each, HostPage)]
        room = len(hosts) if self._tier is None else self._tier.room()
        if len(hosts) <= room:
            return True
        first = known[: hosts[room]]
        here = [page for page in first if isinstance(page, int)]
        self._pool.share(here)
        if room and room + num_reserved <= self._pool.num_free:
            here = self.bring(first)
        self._pool.release(here)
        return False

    def keep_part(self, before: bytes, token_ids: Sequence[int], page: int) -> None:
        """`page`, which has an owner, begins with these tokens, which go on behind `before`."""
        tokens = as_bytes(token_ids)
        _, known = self._continuations.longest(before, tokens)
        if known < len(token_ids):
            self._continue(page, before, tokens)

    def find_part(self, before: bytes, token_ids: Sequence[int]) -> Part | None:
        """What holds the most of these tokens, behind `before`, before the step being planned."""
        tokens = as_bytes(token_ids)
        page, count = self._continuations.longest(before, tokens, self._written)
        if not count:
            return None
        whole = page not in self._keys and count == self._continuations.length(page)
        return Part(page, count, whole and not self._pool.owners(page))

    def begin_step(self) -> None:
        """What was planned so far is written before anything that is planned from now on."""
        self._written.clear()

    def discard(self, page: int) -> None:
        """`page` does not hold what it was said to."""
        if page in self._continuations:
            self._forget(page)
            self._pool.unkeep(page)

    def clear(self, *, host: bool = True) -> None:
        """Forget all contents, those in the host's memory only if `host`; pages without owners are
        free."""
        for page in self._continuations.pages():
            self.discard(page)
        if self._tier is not None and host:
            self._tier.clear()

    def _find(self, key: PageKey) -> Known | None:
        page = self._pages.get(key.digest)
        if page is not None:
            return page if self._keys[page].tokens == key.tokens else None
        return self._tier.find(key) if self._tier is not None else None

    def _give_away(self, page: int) -> None:
        """The pool hands an idle page to somebody who will write it."""
        key = self._forget(page)
        if self._tier is not None and key is not None:
            self._tier.store(key, page)

    def _continue(self, page: int, before: bytes, tokens: bytes) -> None:
        self._written.setdefault(page, self._continuations.length(page))
        self._continuations.add(page, before, tokens)
        self._pool.keep(page)

    def _forget(self, page: int) -> PageKey | None:
        """Its key, if it was full."""
        self._continuations.remove(page)
        self._written.pop(page, None)
        key = self._keys.pop(page, None)
        if key is not None:
            del self._pages[key.digest]
        return key
