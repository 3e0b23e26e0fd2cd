"""Pages come back when their last owner goes, and never twice."""

import pytest

from engine.block_pool import BlockPool


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
