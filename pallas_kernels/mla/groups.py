"""Which queries of latent attention share a block: tokens of one row, for they share its latents.

    heads of a device    128   64   40   20 (as 24)   16    8
    heads of a block      64   64   40   24           16    8
    tokens of a block      1    1    1    2            4    8        of the 64 queries of a block

Knows no kernel: its answer is arrays that say which tokens go where.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from pallas_kernels.attention.query_blocks import QueryBlocks

ROWS = 64  # queries of a block: what the tensor core multiplies at least


class Groups(NamedTuple):
    """Tokens at consecutive positions of one row."""

    members: Int32[Array, "M 1+each"]  # the row; the tokens, first those that are there, T for none
    oldest: Int32[Array, " M"]  # position of the first token; -1 for none


def heads_of_block(N: int) -> int:
    """As many as fit, a multiple of 8, so that no block has fewer than another."""
    padded = -(-N // 8) * 8
    return max(heads for heads in range(8, ROWS + 1, 8) if padded % heads == 0)


def one_token_each(positions: Int32[Array, " B"]) -> Groups:
    """Of a decode step: token b is row b's."""
    rows = np.arange(positions.shape[0], dtype=np.int32)
    members = np.stack([rows, rows], axis=1)  # a constant: no launch makes it
    return Groups(jnp.asarray(members), positions)


def tokens_of_a_row(
    positions: Int32[Array, " T"], blocks: QueryBlocks, each: int, least: int
) -> Groups:
    """`each` tokens together, of the rows that have `least` or more."""
    T, Q = positions.shape[0], blocks.tokens.shape[1]
    tokens = jnp.where(blocks.length[blocks.rows, None] >= least, blocks.tokens, T)
    if each == 1:  # as many groups as tokens; one by blocks would have more that are empty
        at_place = tokens.reshape(-1)[blocks.places]
        tokens = jnp.where(at_place == jnp.arange(T), at_place, T)
        rows = blocks.rows[blocks.places // Q]
    else:
        rows = jnp.repeat(blocks.rows, Q // each)
    tokens = tokens.reshape(-1, each)
    first = tokens[:, 0]
    oldest = jnp.where(first < T, positions[jnp.minimum(first, T - 1)], -1)
    return Groups(jnp.concatenate([rows[:, None], tokens], axis=1), oldest)
