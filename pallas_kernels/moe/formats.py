"""How experts' weights lie in fewer bits, and the numbers that the bits mean.

    w[e, a, c] = scale[e, g, c] * number(e, c, a)       g = a // group size

    fp8     8 bits  e4m3                    groups of any size, all of A where there is one a column
    int8    8 bits  -128 .. 127             likewise
    int4    4 bits  0 .. 15 for -8 .. 7     groups of 64 or 128
    mxfp4   4 bits  e2m1: 0 .5 1 1.5 2 3 4 6 and signs; groups of 32, scale 2^n in a byte n + 253

Two or four numbers share a word of 16 bits, such that a mask turns words that lie side by side into
numbers that do, as the tensor core wants them: word i of 16 holds i, i + 16 (, i + 32, i + 48).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt8, UInt16

LANES = 16  # words between the numbers of a word
MX_GROUP = 32
MX_BIAS = 253  # of a scale's byte, which is a bfloat16's exponent once e2m1's least is 2^-126


class Fp8Experts(NamedTuple):
    """Matrices [A, C] of E experts in e4m3."""

    words: UInt16[Array, "E C A2"]
    scale: Float[Array, "E g C"]


class Int8Experts(NamedTuple):
    """Matrices [A, C] of E experts in whole numbers of 8 bits."""

    words: UInt16[Array, "E C A2"]
    scale: Float[Array, "E g C"]


class Int4Experts(NamedTuple):
    """Matrices [A, C] of E experts in whole numbers of 4 bits."""

    words: UInt16[Array, "E C A4"]
    scale: Float[Array, "E g C"]


class Mxfp4Experts(NamedTuple):
    """Matrices [A, C] of E experts in e2m1."""

    words: UInt16[Array, "E C A4"]
    scale: UInt8[Array, "E g C"]


PackedExperts = Fp8Experts | Int8Experts | Int4Experts | Mxfp4Experts


@dataclass(frozen=True)
class Format:
    """What a kind of container means by its bits."""

    name: str
    bits: int
    number: Callable[[Array], Array]  # float32 of codes 0 .. 2^bits - 1

    @property
    def slots(self) -> int:
        """Numbers of a word."""
        return 16 // self.bits


def _fp8(code: Array) -> Array:
    return lax.bitcast_convert_type(code.astype(jnp.uint8), jnp.float8_e4m3fn).astype(jnp.float32)


def _int8(code: Array) -> Array:
    return lax.bitcast_convert_type(code.astype(jnp.uint8), jnp.int8).astype(jnp.float32)


def _int4(code: Array) -> Array:
    return code.astype(jnp.float32) - 8


def _e2m1(code: Array) -> Array:
    code = code.astype(jnp.int32)
    low, exponent = code & 1, code >> 1 & 3
    size = jnp.where(exponent == 0, 2 * low, (2 + low) << exponent).astype(jnp.float32) / 4
    return jnp.where(code & 8, -size, size)


FORMATS: Mapping[type[Any], Format] = {
    Fp8Experts: Format("fp8", 8, _fp8),
    Int8Experts: Format("int8", 8, _int8),
    Int4Experts: Format("int4", 4, _int4),
    Mxfp4Experts: Format("mxfp4", 4, _e2m1),
}


def is_packed(weight: Any) -> bool:
    return type(weight) in FORMATS


def numbers(words: UInt16[Array, "*n W"], form: Format) -> Float[Array, "*n A"]:
    """What the bits of `words` mean, before scales; in float32."""
    blocks = words.reshape(*words.shape[:-1], -1, LANES)
    shifted = [blocks >> form.bits * slot for slot in range(form.slots)]
    codes = jnp.stack(shifted, axis=-2) & 2**form.bits - 1  # [..., blocks, slots, 16]
    return form.number(codes.reshape(*words.shape[:-1], -1))


def scales(weight: PackedExperts) -> Float[Array, "E g C"]:
    """The scale of each group, in float32."""
    if isinstance(weight, Mxfp4Experts):
        return jnp.ldexp(jnp.float32(1), weight.scale.astype(jnp.int32) - MX_BIAS)
    return weight.scale.astype(jnp.float32)


def dequantize(weight: PackedExperts) -> Float[Array, "E A C"]:
    """The matrices, in float32."""
    found = numbers(weight.words, FORMATS[type(weight)])  # [E, C, A]
    by_group = jnp.swapaxes(scales(weight), 1, 2)  # [E, C, g]
    wide = jnp.repeat(by_group, found.shape[-1] // by_group.shape[-1], axis=-1)
    return jnp.swapaxes(found * wide, 1, 2)


def num_bits(weight: Any) -> int:
    """Of a number; 16 also for those that no kernel takes."""
    return FORMATS[type(weight)].bits if is_packed(weight) else 16


def num_rows(weight: Any) -> int:
    """A of matrices [A, C], packed or not."""
    rows: int = weight.words.shape[2] * 16 // num_bits(weight) if is_packed(weight) else 0
    return rows or weight.shape[1]
