"""Pages by how a text goes on in them: after which page, with which tokens, full or not.

    after k1   t32 t33 t34 t35   page 9        asked: after k1, t32 t33 t40
               t32 t36           page 4        found: page 9, its first 2 tokens

What is found is a beginning of a page, which nobody may share, for what follows in it differs: it
is there to be copied. Knows tokens as bytes, four each; pools and requests are unknown.
"""

from collections.abc import Mapping
from itertools import islice
from types import MappingProxyType

_TOKEN = 4  # bytes
_COMPARED = 32  # pages after the same one; many may follow a common prompt
_NO_LIMITS: Mapping[int, int] = MappingProxyType({})


class Continuations:
    """An index from what lies before a page to the pages that follow it, the newest last."""

    def __init__(self) -> None:
        self._after: dict[bytes, dict[int, bytes]] = {}
        self._before: dict[int, bytes] = {}

    def __contains__(self, page: int) -> bool:
        return page in self._before

    def pages(self) -> list[int]:
        return list(self._before)

    def add(self, page: int, before: bytes, tokens: bytes) -> None:
        """`page` begins with these tokens; what was said of it is forgotten."""
        self.remove(page)
        self._before[page] = before
        self._after.setdefault(before, {})[page] = tokens

    def remove(self, page: int) -> None:
        """Forget a page, known or not."""
        before = self._before.pop(page, None)
        if before is not None:
            siblings = self._after[before]
            del siblings[page]
            if not siblings:
                del self._after[before]

    def length(self, page: int) -> int:
        """Tokens that a page is said to hold; 0 if nothing is said of it."""
        before = self._before.get(page)
        return 0 if before is None else len(self._after[before][page]) // _TOKEN

    def longest(
        self, before: bytes, tokens: bytes, limits: Mapping[int, int] = _NO_LIMITS
    ) -> tuple[int, int]:
        """The page that begins with the most of `tokens`, and how many; (0, 0) if there is none.

        Of pages in `limits` so many tokens count at the most.
        """
        best = (0, 0)
        for page, held in islice(reversed(self._after.get(before, {}).items()), _COMPARED):
            count = min(_common(held, tokens), limits.get(page, len(tokens)))
            if count > best[1]:
                best = (page, count)
        return best


def _common(a: bytes, b: bytes) -> int:
    """Tokens with which both begin."""
    low, high = 0, min(len(a), len(b)) // _TOKEN
    while low < high:
        middle = (low + high + 1) // 2
        if a[: middle * _TOKEN] == b[: middle * _TOKEN]:
            low = middle
        else:
            high = middle - 1
    return low
