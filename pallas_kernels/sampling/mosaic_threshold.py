"""The search for the least logit that top-k and top-p leave, over a row in shared memory.

    low ────┬────────┬────────┬──── last     what lies at or above each of four pivots is counted,
           1/4      1/2      3/4    1         or weighed: one quarter is left, and its ends move to
                                              the least and the largest logit in it

The ends are logits that occur, or pivots; so equals end the search, and half of the floats between
two logits are gone each turn. Four turns find the 20th of 128k logits where it stands apart.
"""

from functools import reduce
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from pallas_kernels.sampling.mosaic_cluster import Cluster

PIVOTS = 4
NUMBERS = PIVOTS + 2  # that the blocks tell each other in a turn
_MOST_TURNS = 200
_INF = float("inf")


class Row(NamedTuple):
    """A block's part of a row in shared memory, by chunks, and the options that filter it."""

    tile: Any  # [chunks, lines, tokens]
    peaks: Any  # of each chunk
    top: Any  # the row's largest logit
    inverse: Any  # of the temperature
    log_min_p: Any
    top_p: Any
    top_k: Any

    def scaled(self, x: Any) -> Any:
        """0 for the likeliest token."""
        return (x - self.top) * self.inverse


class _Search(NamedTuple):
    low: Any  # enough lies at or above
    last: Any  # no threshold lies above
    high: Any  # not enough lies at or above
    target: Any  # what is enough
    done: Any
    turn: Any


def find_threshold(row: Row, cluster: Cluster, turn: Any) -> tuple[Any, Any]:
    """The threshold, -inf where nothing filters, and the turn that comes next."""

    def stage(number: Any, carry: Any) -> Any:
        by_mass = number == 1  # top-p, of what top-k has left
        wanted = jnp.where(by_mass, row.top_p < 1.0, row.top_k > 0)
        return lax.cond(wanted, lambda: _search(row, cluster, by_mass, *carry), lambda: carry)

    found: tuple[Any, Any] = lax.fori_loop(0, 2, stage, (jnp.float32(-_INF), turn))
    return found


def _search(row: Row, cluster: Cluster, by_mass: Any, low: Any, start: Any) -> tuple[Any, Any]:
    """The largest logit at and above which enough lies, or `low`."""

    def unsettled(state: _Search) -> Any:
        left = start + _MOST_TURNS - state.turn
        return (state.low < state.last) & (state.done == 0) & (left > 0)

    def narrow(state: _Search) -> _Search:
        first = state.turn == start  # which asks how much there is in all
        shares = (jnp.where(first, 0.0, 0.25), 0.5, 0.75)
        pivots = [jnp.maximum(state.low, state.low * (1 - f) + state.last * f) for f in shares]
        pivots.append(state.last)
        least, most, sums = _measure(row, cluster, by_mass, pivots, state)
        enough = jnp.where(by_mass, row.top_p * sums[0], row.top_k.astype(jnp.float32))
        target = jnp.where(first, enough, state.target)
        low, high, done = jnp.maximum(state.low, least), state.high, jnp.int32(0)
        for pivot, found in zip(pivots, sums, strict=True):
            accepted = found >= target
            low = jnp.where(accepted, jnp.maximum(low, pivot), low)
            high = jnp.where(accepted, high, jnp.minimum(high, pivot))
            done = jnp.where(found == target, jnp.int32(1), done)
        last = jnp.minimum(jnp.minimum(state.last, most), high)
        return _Search(low, last, high, target, done, state.turn + 1)

    infinite, nothing = jnp.float32(_INF), jnp.float32(0)
    state = _Search(low, row.top, infinite, nothing, jnp.int32(0), start)
    state = lax.while_loop(unsettled, narrow, state)
    return state.low, state.turn


def _measure(
    row: Row, cluster: Cluster, by_mass: Any, pivots: list[Any], state: _Search
) -> tuple[Any, Any, list[Any]]:
    """The least and the largest logit from low to below high; what lies at or above each pivot."""

    def add(i: Any, carry: Any) -> Any:
        least, most, *sums = carry
        x = row.tile.at[i][...]
        weight = lax.cond(by_mass, lambda: _mass(row, x), lambda: jnp.where(x > -_INF, 1.0, 0.0))
        inside = (x >= state.low) & (x < state.high) & (x > -_INF)
        return (
            jnp.minimum(least, jnp.where(inside, x, _INF)),
            jnp.maximum(most, jnp.where(inside, x, -_INF)),
            *(s + jnp.where(x >= p, weight, 0.0) for s, p in zip(sums, pivots, strict=True)),
        )

    def add_if_any(i: Any, carry: Any) -> Any:
        return lax.cond(row.peaks[i] >= state.low, lambda: add(i, carry), lambda: carry)

    chunks, *shape = row.tile.shape
    empty = tuple(jnp.full(shape, x) for x in (_INF, -_INF, *[0.0] * PIVOTS))
    least, most, *sums = lax.fori_loop(0, chunks, add_if_any, empty)
    mine = (jnp.min(least), jnp.max(most), *(jnp.sum(s) for s in sums))
    lowest, highest, *parts = cluster.gather(state.turn, mine)
    return reduce(jnp.minimum, lowest), reduce(jnp.maximum, highest), [sum(s) for s in parts]


def _mass(row: Row, x: Any) -> Any:
    """Of what min-p leaves."""
    scaled = row.scaled(x)
    return jnp.where(scaled >= row.log_min_p, jnp.exp(scaled), 0.0)
