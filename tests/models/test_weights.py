"""Where the heads of a fused tensor lie, and where ours do."""

import pytest

from models.weights.sources import Part, Source


def columns(*parts: Part, shards: int = 1) -> list[int]:
    """The checkpoint's outputs in our order."""
    found: list[int] = []
    for piece in Source(parts, divided=True).pieces(shards):
        assert piece.at == len(found)
        found += range(piece.start, piece.start + piece.count * piece.step, piece.step)
    return found


def in_groups(K: int, queries: int, size: int) -> tuple[Part, Part, Part]:
    """K times: so many query heads, a key head, a value head."""
    whole = (queries + 2) * size
    return (
        Part("qkv", K * queries, size, group=queries, gap=2 * size),
        Part("qkv", K, size, start=queries * size, gap=whole - size),
        Part("qkv", K, size, start=(queries + 1) * size, gap=whole - size),
    )


def test_heads_in_groups_are_sorted_by_what_they_are() -> None:
    parts = in_groups(K=2, queries=2, size=1)  # q0 q1 k0 v0 q2 q3 k1 v1
    assert columns(*parts) == [0, 1, 4, 5, 2, 6, 3, 7]
    assert Source(parts).outputs() == {"qkv": 8}


@pytest.mark.parametrize(
    ("shards", "expected"),
    [
        (2, [0, 1, 2, 3, 4, 5, 6, 7]),
        (4, [0, 2, 3, 1, 2, 3, 4, 6, 7, 5, 6, 7]),  # every key and value twice
    ],
)
def test_each_shard_has_its_groups(shards: int, expected: list[int]) -> None:
    assert columns(*in_groups(K=2, queries=2, size=1), shards=shards) == expected


def test_pairs_of_neighbours_become_halves() -> None:
    assert columns(Part("q", 2, 6, paired=4)) == [0, 2, 1, 3, 4, 5, 6, 8, 7, 9, 10, 11]
    assert columns(Part("q", 1, 4, paired=4)) == [0, 2, 1, 3]
