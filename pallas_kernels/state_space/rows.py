"""Which tokens of a step belong to which state.

tokens   a0 a1 a2 b0 . .         rows a, b; two tokens of padding
start    0 3        count 3 1        slots 5 2      a's state is in slot 5 of the pool
"""

from typing import NamedTuple

from jaxtyping import Array, Bool, Int32


class ScanRows(NamedTuple):
    """Row b owns tokens first[b] .. first[b]+length[b]-1, and the state in slots[b] of the pool."""

    first: Int32[Array, " B"]
    length: Int32[Array, " B"]  # 0 for a row without tokens; its state stays as it is
    slots: Int32[Array, " B"]  # no two rows that have tokens share one
    fresh: Bool[Array, " B"]  # whether the state is zero, whatever the slot holds
