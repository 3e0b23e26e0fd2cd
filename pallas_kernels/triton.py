"""What every kernel in Pallas Triton needs and its API lacks: loads, powers of two, eight bits.

Triton's arrays have powers of two: a head of 192 entries is 128 and 64 of them. Ampere converts no
fp8, so that what is written and read in fp8 is converted as integers, everywhere alike.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import triton as plt

_MANY = 1.5 * 2.0**23  # where float32 has a place of 1, and its last byte is that of an int8
_SMALLEST = 2.0**-6  # e4m3's normal numbers begin here; below, they are multiples of 2^-9
_OF_SMALL = 2.0**14  # where float32 has a place of 2^-9


def parts(H: int, first: int = 0) -> tuple[Any, ...]:
    """The numbers `first` .. first+H-1 of a head's entries, in powers of two."""
    sizes = [1 << bit for bit in reversed(range(H.bit_length())) if H >> bit & 1]
    return tuple(first + sum(sizes[:i]) + jnp.arange(size)[None] for i, size in enumerate(sizes))


def power_of_two(n: int) -> int:
    """The smallest that is no less than `n`."""
    return 1 << (n - 1).bit_length()


def load(ref: Any, mask: Any) -> Any:
    """What `ref` points at, zeros where the mask does not hold."""
    return plt.load(ref, mask=mask, other=None if mask is None else jnp.zeros((), ref.dtype))


def load_rows(ref: Any, mask: Any) -> Any:
    """The same for [rows, entries] with a mask of rows."""
    return load(ref, mask if mask is None else wide(mask, ref.shape))


def store_rows(ref: Any, value: Any, mask: Any) -> None:
    """Rows of [rows, entries] to where `ref` points, those of which the mask holds."""
    plt.store(ref, value.astype(ref.dtype), mask=wide(mask, value.shape))


def wide(mask: Any, shape: tuple[int, ...]) -> Any:
    """A mask of rows, for entries of rows."""
    return jnp.broadcast_to(mask[:, None], shape)


def to_int8(x: Any) -> Any:
    """float32 numbers up to 127 as the nearest of int8, the even one of two."""
    return lax.bitcast_convert_type(x + _MANY, jnp.int32).astype(jnp.int8)


def to_e4m3(x: Any) -> Any:
    """float32 numbers up to 448 as the nearest of float8_e4m3fn.

    float32  s eeeeeeee mmmmmmmmmmmmmmmmmmmmmmm      exponents are 120 less in e4m3
    e4m3            s   eeee mmm
    """
    bits = lax.bitcast_convert_type(x, jnp.int32)
    size = bits & 0x7FFFFFFF
    even = (size + 0x7FFFF + ((size >> 20) & 1)) >> 20
    small = lax.bitcast_convert_type(jnp.abs(x) + _OF_SMALL, jnp.int32) & 0xFF
    byte = jnp.where(jnp.abs(x) < _SMALLEST, small, even - (120 << 3)) | ((bits >> 24) & 0x80)
    return lax.bitcast_convert_type(byte.astype(jnp.uint8), jnp.float8_e4m3fn)


def from_e4m3(x: Any) -> Any:
    """Numbers of float8_e4m3fn, divided by 2^8, in float16: exact, as e4m3 has fewer exponents.

    e4m3     s eeeemmm           exponents are 8 less in float16, with no bit moved
    float16  s 0eeeemmm0000000   but the sign
    """
    byte = lax.bitcast_convert_type(x, jnp.int8).astype(jnp.int16)  # with the sign in bits 7 to 15
    return lax.bitcast_convert_type((byte << 7) & jnp.int16(~0x4000), jnp.float16)
