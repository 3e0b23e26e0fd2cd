"""How the packed tokens of a step are cut into blocks that each belong to one row.

    tokens    a0 a1 a2 a3 a4 b0 c0 c1        rows a, b, c with 5, 1 and 2 tokens
    blocks    [a0 a1 a2 a3] [a4 . . .] [b0 . . .] [c0 c1 . .]        Q = 4

A block gathers its row's pages once for all its queries. The number of blocks is fixed by the
shapes: T / Q full ones, and at most one that is not full for each row.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

BLOCK = 16  # queries in a block


class QueryBlocks(NamedTuple):
    """The chunks of a step, and index arrays between its packed tokens and their blocks."""

    first: Int32[Array, " B"]  # token of each row
    length: Int32[Array, " B"]  # tokens of each row
    tokens: Int32[Array, "M Q"]  # token of each place; T where the place is empty
    rows: Int32[Array, " M"]  # row of each block; B-1 for an empty one, whose places are empty
    places: Int32[Array, " T"]  # flat place (block * Q + offset) of each token


def query_blocks(
    start: Int32[Array, " B"], count: Int32[Array, " B"], num_tokens: int
) -> QueryBlocks:
    """Blocks of rows whose tokens are start .. start+count-1; rows are packed in order."""
    B = start.shape[0]
    M = num_tokens // BLOCK + B
    ends = jnp.cumsum(-(-count // BLOCK))  # [B] one past each row's last block
    block = jnp.arange(M)
    rows = jnp.minimum(jnp.searchsorted(ends, block, side="right", method="compare_all"), B - 1)
    first_block = ends - -(-count // BLOCK)
    offset = (block - first_block[rows])[:, None] * BLOCK + jnp.arange(BLOCK)  # [M, Q] within row
    full = (offset < count[rows][:, None]) & (block < ends[-1])[:, None]
    tokens = jnp.where(full, start[rows][:, None] + offset, num_tokens)
    places = jnp.zeros(num_tokens, jnp.int32)
    places = places.at[tokens].set(jnp.arange(M * BLOCK).reshape(M, BLOCK), mode="drop")
    return QueryBlocks(start, count, tokens.astype(jnp.int32), rows.astype(jnp.int32), places)


def with_decode(
    q: Float[Array, "T N H"],
    positions: Int32[Array, " T"],
    blocks: QueryBlocks,
    chunks: Callable[[int], Float[Array, "T N V"]],
    decode: Callable[[Float[Array, "B N H"], Int32[Array, " B"]], Float[Array, "B N V"]],
) -> Float[Array, "T N V"]:
    """A step by two kernels: rows of one token by `decode`, made for these; others by `chunks`.

    `chunks(least)` attends to rows of `least` tokens and more, and leaves any value for others;
    `decode` to a query of each row at its position, -1 where there is none.
    """
    T, start, alone = q.shape[0], blocks.first, blocks.length == 1
    if start.size == 1:  # nothing to share a step with
        return chunks(1)
    first = jnp.minimum(start, T - 1)
    single = decode(q[first], jnp.where(alone, positions[first], -1))
    return chunks(2).at[jnp.where(alone, start, T)].set(single, mode="drop")
