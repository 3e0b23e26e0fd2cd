"""Masks of constrained rows on their way to the device: into the slots' `allowed` words.

The words are those of `allowed_token_ids`, which a constrained request may not have, and the
row's flag is the same, so that a step costs nothing more than it did. Masks travel as packed
bits, in one array of few fixed sizes; steps without constrained rows send nothing.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int32, UInt32

from engine.request import Request
from engine.scheduler import Plan

_ROWS = (1, 8, 64)  # in one array; more are sent in several


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

    def send(self, allowed: Array, plan: Plan) -> Array:
        """The words with the masks of those rows of `plan` that sample under a grammar."""
        for packed in self._pack(iter([r for r in plan.sampling if r.constraint is not None])):
            allowed = self._programs[len(packed)](allowed, packed)
        return allowed

    def _pack(self, requests: Iterator[Request]) -> Iterator[np.ndarray]:
        while group := list(islice(requests, _ROWS[-1])):
            rows = next(size for size in _ROWS if size >= len(group))
            packed = np.full((rows, self._width), self._sink, np.int32)
            for row, request in zip(packed, group, strict=False):
                if request.slot is not None and request.constraint is not None:
                    row[0], row[1:] = request.slot, request.constraint.mask
            yield packed


def _write(allowed: UInt32[Array, "R1 W"], packed: Int32[Array, "N W1"]) -> UInt32[Array, "R1 W"]:
    words = lax.bitcast_convert_type(packed[:, 1:], jnp.uint32)
    return allowed.at[packed[:, 0]].set(words)
