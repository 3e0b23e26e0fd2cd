"""Pages are watched from their allocation to the loss of what they held."""

from engine.cache.block_pool import BlockPool
from engine.cache.page_residency import PageResidency
from engine.messages import PageEviction


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_life_of_a_page_is_told_when_another_content_takes_its_place() -> None:
    clock = Clock()
    residency = PageResidency(1.0, clock=clock)
    pool = BlockPool(3, residency)
    kept, dropped = pool.allocate(2) or []
    pool.keep(kept)
    pool.release([kept, dropped])
    for clock.now in (2.0, 5.0):
        pool.share([kept])
        pool.accessed([kept])
        pool.release([kept])
    assert residency.take() == []
    clock.now = 9.0
    assert pool.allocate(2) == [dropped, kept]  # what was dropped was never in the cache
    assert residency.take() == [PageEviction(9.0, 4.0, [2.0, 3.0])]
    assert residency.take() == []


def test_a_share_of_pages_is_watched() -> None:
    residency = PageResidency(0.25, seed=3)
    pool = BlockPool(401, residency)
    for _ in range(2):
        pages = pool.allocate(400) or []
        for page in pages:
            pool.keep(page)
        pool.release(pages)
    assert 60 < len(residency.take()) < 140
