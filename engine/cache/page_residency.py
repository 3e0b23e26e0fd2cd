"""How long pages stay in the cache: a sample of them, watched from their allocation to the moment
their content is given up for another's.

    allocated ──▶ accessed ──▶ accessed ──▶ evicted
        └─────────── lifetime ────────────────┘
                      └─ gap ─┘└──── idle ────┘

What is dropped without anybody having kept it was never in the cache, and is not counted. Owns the
watching; which page is whose is `BlockPool`'s.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from engine.messages import PageEviction

_MOST_GAPS = 4  # that are told of one page, the newest
_MOST_UNTOLD = 4096  # evictions between two reports


@dataclass(slots=True)
class _Watched:
    since: float
    accessed: float
    gaps: list[float] = field(default_factory=list)


class PageResidency:
    """`sample` is the share of pages that are watched, above 0 and at most 1."""

    def __init__(
        self, sample: float, seed: int = 0, clock: Callable[[], float] = monotonic
    ) -> None:
        self._sample = sample
        self._random = random.Random(seed)
        self._clock = clock
        self._watched: dict[int, _Watched] = {}
        self._evictions: list[PageEviction] = []

    def allocated(self, page: int) -> None:
        """Somebody is going to write it."""
        self._watched.pop(page, None)
        if self._random.random() < self._sample:
            now = self._clock()
            self._watched[page] = _Watched(now, now)

    def accessed(self, page: int) -> None:
        """One more request begins with it."""
        watched = self._watched.get(page)
        if watched is not None:
            now = self._clock()
            watched.gaps = [*watched.gaps, now - watched.accessed][-_MOST_GAPS:]
            watched.accessed = now

    def evicted(self, page: int) -> None:
        """What it held, which was kept, is lost."""
        watched = self._watched.pop(page, None)
        if watched is not None and len(self._evictions) < _MOST_UNTOLD:
            now = self._clock()
            told = PageEviction(now - watched.since, now - watched.accessed, watched.gaps)
            self._evictions.append(told)

    def take(self) -> list[PageEviction]:
        """Evictions since the last call."""
        evictions, self._evictions = self._evictions, []
        return evictions
