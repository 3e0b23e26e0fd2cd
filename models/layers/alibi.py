"""Slopes of linear biases by distance (ALiBi), one for each head, as families compute them.

    8 heads        1/2  1/4  1/8 ... 1/256      powers of 2^(-8 / N)
    other numbers  those of the power of two below, and then every other one of twice as many;
                   or those of the power of two above, every other one first (MPT)

Source: arXiv 2108.12409. Refuses to know config.json.
"""


def powers(heads: int, reach: float = 8.0) -> tuple[float, ...]:
    """Slopes of so many heads, a power of two; the last is 2^-reach."""
    return tuple(2.0 ** (-reach * head / heads) for head in range(1, heads + 1))


def slopes_from_below(heads: int) -> tuple[float, ...]:
    """What Bloom, Falcon and Baichuan have."""
    whole = 1 << heads.bit_length() - 1
    return (*powers(whole), *powers(2 * whole)[0 : 2 * (heads - whole) : 2])


def slopes_from_above(heads: int, reach: float) -> tuple[float, ...]:
    """What MPT has."""
    whole = 1 << (heads - 1).bit_length()
    slopes = powers(whole, reach)
    return slopes if whole == heads else (*slopes[1::2], *slopes[::2])[:heads]
