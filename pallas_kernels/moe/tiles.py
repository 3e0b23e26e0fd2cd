"""How tokens are arranged in tiles that each belong to one expert.

    choices    t0: 2 0   t1: 2 1   t2: 2 0        T = 3 tokens, k = 2

    sorted     |t0 t2 . .|t1 . . .|t0 t1 t2 .|    tiles of 4; experts 0, 1, 2
    whole      |t0 t1 t2 .|  x 3                  every tile is all tokens; experts 0, 1, 2

Shapes are fixed: there are as many tiles as the worst case needs, and those left over have no
expert. An expert without tokens has no tile, so its weights are not read. A few tokens are not
worth sorting: a tensor core takes 8 of them as it takes one.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int32


class Tiles(NamedTuple):
    """Index arrays between the choices of tokens and their places in tiles of Q."""

    token: Int32[Array, " M"] | None  # of each place, T where it is empty; None in whole tiles
    expert: Int32[Array, " tiles"]  # of each tile; -1 where it has none
    place: Int32[Array, "T k"]  # of each choice; M if its expert is elsewhere


def num_tiles(choices: int, E: int, Q: int) -> int:
    """Tiles that always suffice: full ones, and one begun for each expert that can have one."""
    return min(choices, choices // Q + min(E, choices))


def sort_into_tiles(chosen: Int32[Array, "T k"], E: int, Q: int) -> Tiles:
    """Tiles of `Q` places for the experts 0 .. E-1; those with an expert come first."""
    T, k = chosen.shape
    count = num_tiles(T * k, E, Q)
    flat = chosen.reshape(-1)
    mine = flat[:, None] == jnp.arange(E)  # [T * k, E]
    before = jnp.cumsum(mine, axis=0) - mine  # choices of the same expert by earlier tokens
    ends = jnp.cumsum(-(-mine.sum(0) // Q))  # [E] one past each expert's last tile
    starts = ends - -(-mine.sum(0) // Q)
    expert = jnp.searchsorted(ends, jnp.arange(count), side="right", method="compare_all")
    place = jnp.where(mine, starts * Q + before, 0).sum(1)
    place = jnp.where(mine.any(1), place, count * Q).astype(jnp.int32)
    owner = jnp.arange(T * k, dtype=jnp.int32) // k
    token = jnp.full(count * Q, T, jnp.int32).at[place].set(owner, mode="drop")
    expert = jnp.where(expert < E, expert, -1).astype(jnp.int32)
    return Tiles(token, expert, place.reshape(T, k))


def whole_tiles(chosen: Int32[Array, "T k"], E: int, Q: int) -> Tiles:
    """Tiles of all `T <= Q` tokens: one an expert, or one a choice where these are fewer."""
    T, k = chosen.shape
    flat = chosen.reshape(-1)
    mine = (flat >= 0) & (flat < E)
    if T * k < E:
        number = jnp.arange(T * k, dtype=jnp.int32)
        tile = jnp.where(flat[:, None] == flat, number, T * k).min(1)  # the first that chose it
        expert = jnp.where(mine & (tile == number), flat, -1)
    else:
        tile, number = flat, jnp.arange(E, dtype=jnp.int32)
        expert = jnp.where((flat[:, None] == number).any(0), number, -1)
    place = tile * Q + jnp.arange(T * k, dtype=jnp.int32) // k
    place = jnp.where(mine, place, len(expert) * Q).astype(jnp.int32)
    return Tiles(None, expert, place.reshape(T, k))
