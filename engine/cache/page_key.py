"""What a page holds, as a name: the same name is the same tokens, and the same tokens before them.

    tokens   | t0 .. t15 | t16 .. t31 | t32 .. t47 |        a key for each full page:
    keys     | k0        | k1         | k2         |        k1 = SHA-256(k0, t16 .. t31)

Keys begin from a namespace (`cache_salt`): those of two namespaces never meet.
"""

import hashlib
from array import array
from collections.abc import Sequence
from typing import NamedTuple


class PageKey(NamedTuple):
    """A full page's place in the tree of all beginnings, and the page's own tokens."""

    digest: bytes
    tokens: bytes  # compared too: what is found is equal, not only equally hashed
    before: bytes  # digest of the page before it, or of the namespace


def root(namespace: str) -> bytes:
    """What the first page of a sequence follows."""
    return hashlib.sha256(namespace.encode()).digest()


def as_bytes(token_ids: Sequence[int]) -> bytes:
    """Four bytes a token."""
    return array("i", token_ids).tobytes()


def extend_keys(
    keys: list[PageKey], token_ids: Sequence[int], page_size: int, namespace: str
) -> None:
    """Append the keys of the full pages of `token_ids` that `keys` does not have yet."""
    before = keys[-1].digest if keys else root(namespace)
    for start in range(len(keys) * page_size, len(token_ids) - page_size + 1, page_size):
        tokens = as_bytes(token_ids[start : start + page_size])
        keys.append(PageKey(hashlib.sha256(before + tokens).digest(), tokens, before))
        before = keys[-1].digest
