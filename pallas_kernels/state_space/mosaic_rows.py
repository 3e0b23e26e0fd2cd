"""Rows as the scans for Hopper take them: one array, and the parts of a row, one after the other.

row       a0 a1 a2 a3 a4           its state goes to `slots` after a4
parts     ───────> ────>           with a snapshot after a2: there too, between the parts
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Int32

from pallas_kernels.state_space.rows import ScanRows

TILE = 64  # rows of a state in a block

Slices = list[tuple[Callable[[Any], Any], Any]]  # what of some tokens is copied, and to where


_FIELDS = ("first", "length", "slot", "source", "fresh", "border", "snapshot")


def packed_rows(rows: ScanRows) -> Int32[Array, "F B"]:
    """`_FIELDS` of every row, the last two only where there are snapshots: one kernel of XLA's."""
    fields = rows.first, rows.length, rows.slots, rows.read_slots, rows.fresh.astype(jnp.int32)
    return jnp.stack([*fields, *(rows.snapshots or ())])


@dataclass(frozen=True)
class Row:
    """One of `packed_rows`, in a kernel; numbers are read when used, for registers are few."""

    packed: Any
    number: Any

    def __getattr__(self, field: str) -> Any:
        return self.packed[_FIELDS.index(field), self.number]

    @property
    def has_border(self) -> bool:
        """Whether there are snapshots in this call, if not of this row."""
        return bool(self.packed.shape[0] == len(_FIELDS))


def each_part(row: Row, h: Any, scan: Callable[..., Any], store: Callable[..., None]) -> None:
    """`h = scan(first, end, h)` of the row's tokens, and `store(h, slot)` where it is asked for.

    Parts are not a loop: around the loop of a scan it takes registers that there are none left of.
    """
    first = row.first
    if row.has_border:
        h = scan(first, first + row.border, h)
        pl.when(row.border > 0)(lambda: store(h, row.snapshot))
        first += row.border
    store(scan(first, row.first + row.length, h), row.slot)


@dataclass(frozen=True)
class Tokens:
    """Tokens first .. end-1, some at a time on their way to shared memory."""

    first: Any
    end: Any
    total: int  # T
    slices: Slices
    ready: Any  # a barrier for each stage

    @property
    def stages(self) -> int:
        stages: int = self.slices[0][1].shape[0]
        return stages

    @property
    def ahead(self) -> int:
        """Tokens of a chunk."""
        ahead: int = self.slices[0][1].shape[1]
        return ahead

    def begin(self, chunk: Any) -> Any:
        """The first token that is fetched for a chunk: no fetch goes past the last token."""
        return jnp.minimum(self.first + chunk * self.ahead, self.total - self.ahead)

    def slot(self, chunk: Any) -> Any:
        return lax.rem(chunk, jnp.int32(self.stages))

    def start(self) -> None:
        """Fetch the first chunks."""
        plgpu.commit_smem()  # after the last of an earlier part
        for chunk in range(self.stages):
            self.fetch(jnp.int32(chunk))

    def wait(self, chunk: Any) -> None:
        plgpu.barrier_wait(self.ready.at[self.slot(chunk)])

    def fetch_later(self, chunk: Any) -> None:
        """What takes the place of a chunk that has been read."""
        plgpu.commit_smem()  # reads are over before the copy engine writes
        self.fetch(chunk + self.stages)

    def fetch(self, chunk: Any) -> None:
        @pl.when(self.first + chunk * self.ahead < self.end)
        def _() -> None:
            tokens, slot = pl.ds(self.begin(chunk), self.ahead), self.slot(chunk)
            for source, target in self.slices:
                plgpu.copy_gmem_to_smem(source(tokens), target.at[slot], self.ready.at[slot])

    def place(self, index: Any) -> tuple[Any, Any, Any]:
        """Of the row's token `index`: its chunk, the stage, the place there."""
        chunk = lax.div(index, jnp.int32(self.ahead))
        return chunk, self.slot(chunk), self.first + index - self.begin(chunk)
