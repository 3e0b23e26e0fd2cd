"""Slopes of linear biases."""

import pytest

from models.layers.alibi import powers, slopes_from_above, slopes_from_below


def test_eight_heads_have_the_slopes_of_the_paper() -> None:
    assert powers(8) == tuple(0.5**head for head in range(1, 9))


@pytest.mark.parametrize("heads", [1, 2, 16, 64])
def test_both_rules_agree_on_powers_of_two(heads: int) -> None:
    assert slopes_from_below(heads) == slopes_from_above(heads, 8.0) == powers(heads)


def test_other_numbers_take_every_other_slope_of_twice_as_many() -> None:
    assert slopes_from_below(3) == (2.0**-4, 2.0**-8, 2.0**-2)
    assert slopes_from_above(3, 8.0) == (2.0**-4, 2.0**-8, 2.0**-2)
    assert slopes_from_below(112)[64:66] == (2.0**-0.0625, 2.0**-0.1875)
    assert len(slopes_from_below(112)) == 112


def test_the_last_slope_is_as_small_as_asked_for() -> None:
    assert slopes_from_above(4, 4.0) == (0.5, 0.25, 0.125, 0.0625)
