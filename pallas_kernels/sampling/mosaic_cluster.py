"""Blocks of a cluster that hold one row together, and what they tell each other."""

from functools import reduce
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

NO_TOKEN = 2.0**30


class Cluster:
    """A turn is some numbers from each of the blocks, through the GPU's memory.

    `parts` is float32[rows, 2, numbers, blocks]. Turns count from 0, in every block alike.
    """

    def __init__(self, parts: Any, barrier: Any, row: Any, block: Any, interpret: bool) -> None:
        self.parts, self.barrier, self.row, self.block = parts, barrier, row, block
        self.interpret, self.size = interpret, parts.shape[3]
        if not interpret:
            self.semaphores = pl.get_global(plgpu.SemaphoreType.REGULAR((parts.shape[0],)))

    def gather(self, turn: Any, values: Any) -> list[list[Any]]:
        """For each value, those of all blocks.

        Two turns have different places; nobody writes a third before all have read the first.
        """
        place = self.parts.at[self.row, lax.rem(jnp.int32(turn), jnp.int32(2))]
        for field, value in enumerate(values):
            place[field, self.block] = value
        self._meet(turn)
        return [[place[field, b] for b in range(self.size)] for field, _ in enumerate(values)]

    def largest(self, turn: Any, values: Any, ids: Any) -> tuple[Any, Any]:
        """The largest value of all blocks and its id as a float, the first of equals."""
        mine = jnp.max(values)
        index = jnp.min(jnp.where(values == mine, ids.astype(jnp.float32), NO_TOKEN))
        peaks, indices = self.gather(turn, (mine, index))
        best = reduce(jnp.maximum, peaks)
        found = [jnp.where(v == best, i, NO_TOKEN) for v, i in zip(peaks, indices, strict=True)]
        return best, reduce(jnp.minimum, found)

    def _meet(self, turn: Any) -> None:
        """The interpreter has no semaphores; a cluster's barrier does not order global writes."""
        if self.interpret:
            plgpu.barrier_arrive(self.barrier)
            plgpu.barrier_wait(self.barrier)
            return
        semaphore = self.semaphores.at[self.row]
        plgpu.semaphore_signal(semaphore, memory_scope="gpu")
        everybody = self.size * (jnp.int32(turn) + 1)
        plgpu.semaphore_wait(semaphore, everybody, decrement=False, memory_scope="gpu")
