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


def extend_keys(
    keys: list[PageKey], token_ids: Sequence[int], page_size: int, namespace: str
) -> None:
    """Append the keys of the full pages of `token_ids` that `keys` does not have yet."""
    before = keys[-1].digest if keys else hashlib.sha256(namespace.encode()).digest()
    for start in range(len(keys) * page_size, len(token_ids) - page_size + 1, page_size):
        tokens = array("i", token_ids[start : start + page_size]).tobytes()
        before = hashlib.sha256(before + tokens).digest()
        keys.append(PageKey(before, tokens))
