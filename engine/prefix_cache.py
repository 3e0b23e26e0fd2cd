"""Which pages hold what: a prompt that begins as an earlier one does is not computed again.

    tokens   | t0 .. t15 | t16 .. t31 | t32 .. t47 |        a key for each full page:
    keys     | k0        | k1         | k2         |        k1 = SHA-256(k0, t16 .. t31)

A page's key stands for all tokens up to its end, so the map from keys to pages is a tree whose
edges are pages, and the longest match is found by walking keys until one is missing. Keys begin
from a namespace (`cache_salt`): requests of two namespaces never share a page.

A request's pages lose their owners together, the last page first, so the page that was without
an owner for longest is always a leaf of that tree: the pool gives it away first, and no page is
left whose beginning is gone.

Owns keys and contents. Pages and their owners are `BlockPool`'s; devices and requests are unknown.
"""

import hashlib
from array import array
from collections.abc import Sequence
from typing import NamedTuple

from engine.block_pool import BlockPool


class PageKey(NamedTuple):
    """A full page's place in the tree, and the page's own tokens."""

    digest: bytes
    tokens: bytes  # compared too: what is found is equal, not only equally hashed


def extend_keys(
    keys: list[PageKey], token_ids: Sequence[int], page_size: int, namespace: str
) -> None:
    """Append the keys of the full pages of `token_ids` that `keys` does not have yet."""
    before = keys[-1].digest if keys else hashlib.sha256(namespace.encode()).digest()
    for start in range(len(keys) * page_size, len(token_ids) - page_size + 1, page_size):
        tokens = array("i", token_ids[start : start + page_size]).tobytes()
        before = hashlib.sha256(before + tokens).digest()
        keys.append(PageKey(before, tokens))


class PrefixCache:
    """Finds pages by what they hold."""

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._pages: dict[bytes, int] = {}
        self._keys: dict[int, PageKey] = {}
        pool.on_reuse = self._forget

    def __len__(self) -> int:
        return len(self._pages)

    def match(self, keys: Sequence[PageKey]) -> list[int]:
        """The pages of the longest beginning of `keys` that is here."""
        pages = []
        for key in keys:
            page = self._pages.get(key.digest)
            if page is None or self._keys[page].tokens != key.tokens:
                break
            pages.append(page)
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

    def _forget(self, page: int) -> None:
        del self._pages[self._keys.pop(page).digest]
