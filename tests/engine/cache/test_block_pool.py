"""Pages come back when their last owner goes, and never twice."""

import pytest

from engine.cache.block_pool import BlockPool


def test_allocate_all_or_nothing_and_never_the_sink():
    pool = BlockPool(4)
    assert pool.allocate(4) is None and pool.num_free == 3
    assert sorted(pool.allocate(3)) == [1, 2, 3]
    assert pool.allocate(0) == [] and pool.allocate(1) is None


def test_shared_pages_outlive_their_first_owner():
    pool = BlockPool(4)
    pages = pool.allocate(2)
    pool.share(pages)
    pool.release(pages)
    assert pool.num_free == 1 and pool.owners(pages[0]) == 1
    pool.release(pages)
    assert pool.num_free == 3


def test_misuse_is_an_error():
    pool = BlockPool(3)
    with pytest.raises(ValueError, match="page 0 has no owner"):
        pool.release([0])
    with pytest.raises(ValueError, match="page 1 has no owner"):
        pool.share([1])
    with pytest.raises(ValueError, match="page 7"):
        pool.release([7])
    with pytest.raises(ValueError, match="at least one page"):
        BlockPool(1)


def test_kept_pages_are_given_away_last_and_the_oldest_first():
    pool, reused = BlockPool(5), []
    pool.on_reuse = reused.append
    first, second = pool.allocate(2), pool.allocate(1)
    for page in (*first, *second):
        pool.keep(page)
    pool.release(first)
    pool.release(second)
    assert (pool.num_free, pool.num_idle) == (4, 3)
    assert pool.allocate(3)[1:] == [first[1], first[0]]
    assert reused == [first[1], first[0]]


def test_an_idle_page_can_be_owned_again():
    pool = BlockPool(3)
    (page,) = pool.allocate(1)
    pool.keep(page)
    pool.release([page])
    pool.share([page])
    assert (pool.owners(page), pool.num_idle, pool.num_free) == (1, 0, 1)


def test_a_page_not_worth_keeping_is_free():
    pool = BlockPool(3)
    (page,) = pool.allocate(1)
    pool.keep(page)
    pool.release([page])
    pool.unkeep(page)
    assert (pool.num_free, pool.num_idle) == (2, 0)
