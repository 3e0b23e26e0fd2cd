"""Which tokens of a step belong to which state.

tokens   a0 a1 a2 b0 . .         rows a, b; two tokens of padding
first    0 3        length 3 1       slots 5 2      a's state is in slot 5 of the pool

States are kept for the beginnings of prompts as pages are, though only at some borders of pages: a
state is as large as thousands of tokens in pages. A row that goes past a border of its choice
leaves a copy there in the same pass (`snapshots`), and a row whose prompt begins so reads that copy
and writes to its own slot (`sources`): neither costs a launch, a step more, or a copy of its own.

tokens   c5 c6 c7 | c8 c9        pages of 8: snapshots.after = 3, snapshots.slots = 7
later    d8 d9 ...               begins as c did: first token 8, sources = 7, slots = 1
"""

from typing import NamedTuple

from jaxtyping import Array, Bool, Int32


class Snapshots(NamedTuple):
    """The state of row b after `after[b]` of its tokens goes to slots[b] of the pool as well."""

    after: Int32[Array, " B"]  # 0 for none; at most the row's length
    slots: Int32[Array, " B"]  # where there is one, no row's slot or source, and no other's


class ScanRows(NamedTuple):
    """Row b owns tokens first[b] .. first[b]+length[b]-1, and the state in slots[b] of the pool."""

    first: Int32[Array, " B"]
    length: Int32[Array, " B"]  # 0 for a row without tokens; its state stays as it is
    slots: Int32[Array, " B"]  # no two rows that have tokens share one
    fresh: Bool[Array, " B"]  # whether the state is zero, whatever the slot holds
    sources: Int32[Array, " B"] | None = None  # where states are read; none: where they are written
    snapshots: Snapshots | None = None

    @property
    def read_slots(self) -> Int32[Array, " B"]:
        """Where the states before the first tokens are; of no use for rows that are fresh."""
        return self.slots if self.sources is None else self.sources
