"""How many turns the next step has.

Several only while nobody waits, every row decodes and the pages of all turns are free.
"""

from collections.abc import Callable, Sequence

from engine.cache.block_pool import BlockPool
from engine.request import Request

Windows = Callable[[int], Sequence[int]]


def turns_of(running: Sequence[Request], windows: Windows, pool: BlockPool, page_size: int) -> int:
    """Turns of a step of those that run; `windows(rows)` are numbers that a step of so many rows
    can have, falling. A grammar has to see each token before the next."""
    rows = [r for r in running if r.num_tokens < r.max_tokens]
    if not rows:
        return 1
    if any(r.num_tokens - r.num_computed > 1 or r.constraint is not None for r in rows):
        return 1
    most = max(r.most_ahead for r in rows)
    for window in windows(len(rows)):
        if window <= most and _missing_pages(rows, window, page_size) <= pool.num_free:
            return window
    return 1


def _missing_pages(rows: list[Request], window: int, page_size: int) -> int:
    """Pages that rows which decode do not own yet, and would with so many tokens more."""
    ends = [min(r.num_tokens - 1 + window, r.max_tokens - 1) for r in rows]
    needed = [-(-end // page_size) for end in ends]
    return sum(max(0, n - len(r.pages)) for n, r in zip(needed, rows, strict=True))
