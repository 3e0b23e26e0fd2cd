"""What a row of logits is to be drawn with: arrays of one number a row."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float32, Int32, UInt32

COUNT_BITS = 30  # of an entry of `counts`; the bit above them says that the prompt has the token


class DrawRows(NamedTuple):
    """Options of B rows. Temperature 0 is greedy, and needs nothing else but the penalties."""

    temperature: Float32[Array, " B"]
    top_p: Float32[Array, " B"]  # 1: off
    min_p: Float32[Array, " B"]  # 0: off
    top_k: Int32[Array, " B"]  # 0: off
    seed_high: UInt32[Array, " B"]
    seed_low: UInt32[Array, " B"]
    position: Int32[Array, " B"]
    slot: Int32[Array, " B"]  # whose counts are the row's
    penalised: Bool[Array, " B"]  # others do not read their counts
    presence: Float32[Array, " B"]
    frequency: Float32[Array, " B"]
    repetition: Float32[Array, " B"]
