"""What the cache's pages hold, asked of the engine only while somebody looks, and not often."""

import math
import time

from engine.cache.page_map import PageMap
from engine.messages import ReadPages

REST_SECONDS = 0.9  # at least, from one question to the next
OLD_SECONDS = 10.0  # what is older is not shown: nobody has looked since


class PageWatch:
    """The engine's last answer, and when to ask for another."""

    def __init__(self) -> None:
        self._asked = -math.inf
        self._told = -math.inf
        self._map: PageMap | None = None

    def question(self) -> list[ReadPages]:
        """What to send now that somebody looks: nothing, if it was asked just now."""
        now = time.monotonic()
        if now - self._asked < REST_SECONDS:
            return []
        self._asked = now
        return [ReadPages()]

    def tell(self, pages: PageMap) -> None:
        """The engine answered."""
        self._map, self._told = pages, time.monotonic()

    @property
    def newest(self) -> PageMap | None:
        """None until there is one that is not old."""
        return self._map if time.monotonic() - self._told < OLD_SECONDS else None
