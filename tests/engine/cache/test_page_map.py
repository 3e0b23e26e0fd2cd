"""The picture of the cache says of each page what the pool says."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engine.cache.block_pool import BlockPool
from engine.cache.page_map import draw


def test_a_pool_is_drawn_as_it_is() -> None:
    pool = BlockPool(7)
    one, two, cached, dropped = pool.allocate(4) or []
    pool.share([two])
    pool.keep(cached)
    pool.release([cached, dropped])
    seen = pool.map()
    assert (seen.num_pages, seen.pages_per_cell) == (6, 1)
    assert (one, two, cached) == (1, 2, 3)
    assert seen.owned == [1, 0, 0, 0, 0, 0]
    assert seen.shared == [0, 1, 0, 0, 0, 0]
    assert seen.idle == [0, 0, 1, 0, 0, 0]


@given(st.lists(st.sampled_from(["free", "one", "many", "idle"]), min_size=1), st.integers(1, 9))
def test_many_pages_are_counted_in_few_cells(kinds: list[str], most: int) -> None:
    owners = [0] + [{"one": 1, "many": 3}.get(kind, 0) for kind in kinds]
    idle = [page for page, kind in enumerate(kinds, 1) if kind == "idle"]
    seen = draw(owners, idle, most)
    each = seen.pages_per_cell
    cells = [Counter(kinds[start : start + each]) for start in range(0, len(kinds), each)]
    assert len(cells) <= most and seen.num_pages == len(kinds)
    assert seen.owned == [cell["one"] for cell in cells]
    assert seen.shared == [cell["many"] for cell in cells]
    assert seen.idle == [cell["idle"] for cell in cells]
