"""Masks of constrained rows on their way to the device: into the slots' `allowed` words.

The words are those of `allowed_token_ids`, which a constrained request may not have, and the
row's flag is the same, so that a step costs nothing more than it did. Masks travel as packed
bits, in one array of few fixed sizes; steps without constrained rows send nothing. Whose masks
change is `engine.sampling.row_masks`'s to say.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int32, UInt32
from numpy.typing import NDArray

Ints = NDArray[np.int32]
_ROWS = (1, 16, 64)  # in one array; more are sent in several


class MaskSender:
    """The compiled programs that write masks; `sink` is the slot of padding."""

    def __init__(self, num_words: int, sink: int) -> None:
        self._width = 1 + num_words
        self._sink = sink
        self._programs: dict[int, Any] = {}

    def warm_up(self, allowed: jax.ShapeDtypeStruct, whole: jax.sharding.Sharding) -> None:
        """Compile for words like `allowed`, which lie whole on each device."""
        write = jax.jit(_write, donate_argnums=0, out_shardings=allowed.sharding)
        for rows in _ROWS:
            packed = jax.ShapeDtypeStruct((rows, self._width), np.int32, sharding=whole)
            self._programs[rows] = write.lower(allowed, packed).compile()

    def send(self, allowed: Array, masks: Iterable[tuple[int, Ints]]) -> Array:
        """The words with those of some slots changed."""
        for packed in self._pack(iter(masks)):
            allowed = self._programs[len(packed)](allowed, packed)
        return allowed

    def _pack(self, masks: Iterator[tuple[int, Ints]]) -> Iterator[Ints]:
        while group := list(islice(masks, _ROWS[-1])):
            rows = next(size for size in _ROWS if size >= len(group))
            packed = np.full((rows, self._width), self._sink, np.int32)
            for row, (slot, words) in zip(packed, group, strict=False):
                row[0], row[1:] = slot, words
            yield packed


def _write(allowed: UInt32[Array, "R1 W"], packed: Int32[Array, "N W1"]) -> UInt32[Array, "R1 W"]:
    words = lax.bitcast_convert_type(packed[:, 1:], jnp.uint32)
    return allowed.at[packed[:, 0]].set(words)
