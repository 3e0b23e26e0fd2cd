"""What the pages of the cache hold, as a picture of a bounded number of equal cells.

Made only when it is asked for. Knows counts of owners and which pages are idle; not whose they are.
"""

from collections.abc import Collection, Sequence

import msgspec
import numpy as np

MOST_CELLS = 1024


class PageMap(msgspec.Struct, kw_only=True, array_like=True):
    """Cell i is pages i * pages_per_cell .. of `num_pages`; the last may have fewer.

    Of a cell's pages `owned[i]` have one owner, `shared[i]` several, `idle[i]` are kept for who
    may want them again; the others are free.
    """

    num_pages: int
    pages_per_cell: int
    owned: list[int]
    shared: list[int]
    idle: list[int]


def draw(owners: Sequence[int], idle: Collection[int], most_cells: int = MOST_CELLS) -> PageMap:
    """The map of pages 1.. of which each has `owners[page]`; page 0, the sink, is no cell's."""
    counts = np.array(owners[1:], np.int32)
    each = max(1, -(-len(counts) // most_cells))
    cells = -(-len(counts) // each)

    def per_cell(pages: np.ndarray) -> list[int]:
        found: list[int] = np.bincount(pages // each, minlength=cells).tolist()
        return found

    return PageMap(
        num_pages=len(counts),
        pages_per_cell=each,
        owned=per_cell(np.flatnonzero(counts == 1)),
        shared=per_cell(np.flatnonzero(counts > 1)),
        idle=per_cell(np.fromiter(idle, np.int64, len(idle)) - 1),
    )
