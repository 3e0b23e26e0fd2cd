"""Pages of latents as an engine leaves them."""

import jax.numpy as jnp
import numpy as np


def make_pages(rng, lengths, S, H, dtype):
    """Pages in shuffled order, and their table; slots that no row has reached hold NaN."""
    width = max(lengths) // S + 2
    pages = np.full((len(lengths) * width + 1, S, H), np.nan)
    table = 1 + rng.permutation(len(lengths) * width).reshape(len(lengths), width)
    for row, length in enumerate(lengths):
        places = np.arange(length)
        pages[table[row, places // S], places % S] = rng.standard_normal((length, H))
    return jnp.asarray(pages, dtype), jnp.asarray(table, jnp.int32)


def make_chunks(rows):
    """Of (tokens, tokens before them): first token, tokens; and each token's row and position."""
    count, before = (np.array(numbers) for numbers in zip(*rows, strict=True))
    start = np.cumsum(count) - count
    row = np.repeat(np.arange(len(rows)), count)
    positions = before[row] + np.arange(len(row)) - start[row]
    return tuple(jnp.asarray(x, jnp.int32) for x in (start, count, row, positions))
