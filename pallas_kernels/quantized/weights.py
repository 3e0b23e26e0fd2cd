"""Weights of 4 and 8 bits that share a scale in groups, as the kernels read them.

    w[a, c] = scale[g, c] * n[a, c] + low[g, c]      g = a // group size      n: 0 .. 15, Int4Weight
    w[a, c] = scale[g, c] * NF4[n[a, c]]             n: 0 .. 15               Nf4Weight
    w[a, c] = scale[g, c] * n[a, c]                  n: -128 .. 127           Int8Weight

    words[c, 16 b + 4 j + v]     bits 16 h + 4 p and up: n[128 b + 32 p + 8 v + 2 j + h, c]

Rows of `words` are columns of the matrix. A word's halves h hold neighbours, its nibbles what lies
32 apart (a plane p): so, masked, it is a pair as a tensor core's thread j takes them, and a thread
loads four. Bytes lie likewise, with two planes. Knows no checkpoint.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32, Integer

from pallas_kernels.errors import KernelError

PLANE = 32  # rows of the matrix from one nibble of a word to the next
WORDS_OF_BLOCK = 16  # that hold all planes of so many rows
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


class Int4Weight(NamedTuple):
    """A matrix [A, C] of evenly spaced values."""

    words: Int32[Array, "C A8"]
    scale: Float[Array, "g C"]
    low: Float[Array, "g C"] | None = None  # of number 0; None where it is -8 scale


class Nf4Weight(NamedTuple):
    """A matrix [A, C] of values spaced as a normal distribution is, of bitsandbytes."""

    words: Int32[Array, "C A8"]
    scale: Float[Array, "g C"]  # the largest magnitude of a group


class Int8Weight(NamedTuple):
    """A matrix [A, C] of 8 bits."""

    words: Int32[Array, "C A4"]
    scale: Float[Array, "g C"]


QuantizedWeight = Int4Weight | Nf4Weight | Int8Weight


def bits_of(weight: QuantizedWeight) -> int:
    return 8 if isinstance(weight, Int8Weight) else 4


def shape_of(weight: QuantizedWeight) -> tuple[int, int]:
    """A, C."""
    return weight.words.shape[1] * 32 // bits_of(weight), weight.words.shape[0]


def group_size(weight: QuantizedWeight) -> int:
    return shape_of(weight)[0] // weight.scale.shape[0]


def pack(numbers: Integer[np.ndarray, "C A"], bits: int = 4) -> Int32[Array, "C words"]:
    """`pack_words` on JAX's default device."""
    return jnp.asarray(pack_words(numbers, bits))


def pack_words(numbers: Integer[np.ndarray, "C A"], bits: int = 4) -> Int32[np.ndarray, "C words"]:
    """Numbers of so many bits, taken as they lie in their lowest bits, into words.

    Raises:
        KernelError: they do not fill whole blocks of words.
    """
    block = WORDS_OF_BLOCK * 32 // bits
    if numbers.shape[1] % block:
        raise KernelError(
            f"Weights of {bits} bits take rows in a multiple of {block}, not {numbers.shape[1]}."
        )
    unsigned = numbers.astype(np.uint32) & np.uint32(2**bits - 1)
    # [C, block, plane, v, j, half] -> [C, block, j, v, half, plane]
    split = unsigned.reshape(len(numbers), -1, 16 // bits, 4, 4, 2).transpose(0, 1, 4, 3, 5, 2)
    shifted = split << _shifts(bits).astype(np.uint32)
    words: Int32[np.ndarray, "C words"] = (
        shifted.sum((-1, -2), np.uint32).view(np.int32).reshape(len(numbers), -1)
    )
    return words


def unpack(words: Int32[Array, "C words"], bits: int) -> Int32[Array, "C A"]:
    """The numbers in words, from 0 on."""
    split: Array = words.reshape(len(words), -1, 4, 4, 1, 1) >> _shifts(bits) & 2**bits - 1
    return split.transpose(0, 1, 5, 3, 2, 4).reshape(len(words), -1)


def in_word_order(x: Float[Array, "M A"], bits: int) -> Float[Array, "shifts M words"]:
    """Rows in the order of the words: the first of each word, from its lowest bits, and so on."""
    split = x.reshape(len(x), -1, 16 // bits, 4, 4, 2)  # block, plane, v, j, half
    return split.transpose(5, 2, 0, 1, 4, 3).reshape(32 // bits, len(x), -1)


def _shifts(bits: int) -> Int[np.ndarray, "half plane"]:
    """Where in a word the numbers lie."""
    return 16 * np.arange(2, dtype=np.int32)[:, None] + np.arange(0, 16, bits, dtype=np.int32)


def dequantize(weight: QuantizedWeight) -> Float[Array, "A C"]:
    """The matrix, in float32."""
    n, group = unpack(weight.words, bits_of(weight)), group_size(weight)
    return scaled(
        type(weight), n, *(jnp.repeat(v.T, group, axis=1) for v in weight[1:] if v is not None)
    ).T


def scaled(
    kind: type[QuantizedWeight],
    n: Int32[Array, "*shape"],
    scale: Float[Array, "*shape"],
    low: Float[Array, "*shape"] | None = None,
) -> Float32[Array, "*shape"]:
    """What the numbers `n` mean."""
    wide = scale.astype(jnp.float32)
    if kind is Nf4Weight:
        return _chosen(NF4, n) * wide
    if kind is Int8Weight:
        return ((n ^ 128) - 128).astype(jnp.float32) * wide
    if low is None:
        return (n - 8).astype(jnp.float32) * wide
    return n.astype(jnp.float32) * wide + low.astype(jnp.float32)


def _chosen(values: tuple[float, ...], n: Int32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """values[n], by the bits of n from the lowest: a CPU selects fast and gathers slowly."""
    left: list[Array] = [jnp.float32(value) for value in values]
    bit = 1
    while len(left) > 1:
        pairs = zip(left[::2], left[1::2], strict=True)
        left = [jnp.where(n & bit != 0, odd, even) for even, odd in pairs]
        bit *= 2
    return left[0]
