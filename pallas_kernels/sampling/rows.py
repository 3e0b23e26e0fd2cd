"""What a row of logits is to be drawn with: arrays of one number a row, or one of them all."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, UInt32

COUNT_BITS = 30  # of an entry of `counts`; the bit above them says that the prompt has the token


class DrawRows(NamedTuple):
    """Options of B rows. Temperature 0 is greedy, and of the others reads the penalties only."""

    temperature: Float32[Array, " B"]
    top_p: Float32[Array, " B"]  # 1: off
    min_p: Float32[Array, " B"]  # 0: off
    presence: Float32[Array, " B"]  # 0: off
    frequency: Float32[Array, " B"]  # 0: off
    repetition: Float32[Array, " B"]  # 1: off
    top_k: Int32[Array, " B"]  # 0: off
    slot: Int32[Array, " B"]  # whose counts are the row's; read where a penalty is on
    position: Int32[Array, " B"]
    seed_high: UInt32[Array, " B"]
    seed_low: UInt32[Array, " B"]


NUM_FIELDS = len(DrawRows._fields)
_DTYPES = (*[jnp.float32] * 6, *[jnp.int32] * 3, *[jnp.uint32] * 2)


def is_penalised(presence: Array, frequency: Array, repetition: Array) -> Bool[Array, "*rows"]:
    """Whether any penalty is on."""
    return (presence != 0) | (frequency != 0) | (repetition != 1)


def pack_rows(rows: DrawRows) -> Int32[Array, "F B"]:
    """The bits of all fields as one array: one operand of a conditional, or of a kernel."""
    return jnp.stack([lax.bitcast_convert_type(field, jnp.int32) for field in rows])


def unpack_rows(packed: Int32[Array, "F B"]) -> DrawRows:
    """What `pack_rows` packed."""
    return DrawRows(
        *(
            lax.bitcast_convert_type(bits, dtype)
            for bits, dtype in zip(packed, _DTYPES, strict=True)
        )
    )
