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

_COMPARED = 1024  # choices that are compared with each other: one launch where a sum takes several


class Tiles(NamedTuple):
    """Index arrays between the choices of tokens and their places in tiles of Q."""

    token: Int32[Array, " M"] | None  # of each place, T where it is empty; None in whole tiles
    expert: Int32[Array, " tiles"]  # of each tile; E where it has none
    place: Int32[Array, "T k"]  # of each choice; M if its expert is elsewhere


def num_tiles(choices: int, E: int, Q: int) -> int:
    """Tiles that always suffice: full ones, and one begun for each expert that can have one."""
    return min(choices, choices // Q + min(E, choices))


def sort_into_tiles(chosen: Int32[Array, "T k"], E: int, Q: int) -> Tiles:
    """Tiles of `Q` places for the experts 0 .. E-1; those with an expert come first."""
    T, k = chosen.shape
    count, number = num_tiles(T * k, E, Q), jnp.arange(T * k, dtype=jnp.int32)
    flat, every = chosen.reshape(-1), jnp.arange(E, dtype=jnp.int32)
    full = -(-(flat[:, None] == every).sum(0, dtype=jnp.int32) // Q)  # [E] tiles of each expert
    ends = jnp.where(every[:, None] >= every, full, 0).sum(1, dtype=jnp.int32)
    expert = (ends <= jnp.arange(count)[:, None]).sum(1, dtype=jnp.int32)
    place = (ends - full)[flat] * Q + _earlier(flat, E)
    place = jnp.where((flat >= 0) & (flat < E), place, count * Q)
    if T * k <= _COMPARED:
        here = place == jnp.arange(count * Q)[:, None]  # [M, T * k]
        token = jnp.where(here, number // k, T).min(1)
    else:
        token = jnp.full(count * Q, T, jnp.int32).at[place].set(number // k, mode="drop")
    return Tiles(token, expert, place.reshape(T, k))


def _earlier(flat: Int32[Array, " n"], E: int) -> Int32[Array, " n"]:
    """How many choices before each are of the same expert, of 0 .. E-1."""
    if len(flat) <= _COMPARED:
        number = jnp.arange(len(flat))
        return ((flat[:, None] == flat) & (number < number[:, None])).sum(1, dtype=jnp.int32)
    mine = flat[:, None] == jnp.arange(E)
    return jnp.where(mine, jnp.cumsum(mine, axis=0) - 1, 0).sum(1, dtype=jnp.int32)


def whole_tiles(chosen: Int32[Array, "T k"], E: int, Q: int) -> Tiles:
    """Tiles of all `T <= Q` tokens: one an expert, or one a choice where these are fewer."""
    T, k = chosen.shape
    flat = chosen.reshape(-1)
    mine = (flat >= 0) & (flat < E)
    if T * k < E:
        number = jnp.arange(T * k, dtype=jnp.int32)
        same = flat[:, None] == flat
        tile = jnp.where(same, number, T * k).min(1) if T > 1 else number  # the first to choose it
        expert = jnp.where(mine & (tile == number), flat, E)
    else:
        tile, number = flat, jnp.arange(E, dtype=jnp.int32)
        expert = jnp.where((flat[:, None] == number).any(0), number, E)
    place = tile * Q + jnp.arange(T * k, dtype=jnp.int32) // k
    place = jnp.where(mine, place, len(expert) * Q).astype(jnp.int32)
    return Tiles(None, expert, place.reshape(T, k))
