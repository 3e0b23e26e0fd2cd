"""Weights of 4 bits, and the checkpoint formats that are repacked into them.

    w[a, c] = scale[g, c] * q[c, a] + low[g, c]        g = a // group size, q in -8 .. 7

GPTQ     qweight int32 [A / 8, C], the first of 8 numbers in the lowest bits; qzeros [A / g, C / 8]
AWQ      qweight int32 [A, C / 8], columns 0 2 4 6 1 3 5 7 from the lowest bits; qzeros likewise

Both mean scale * (number - zero), numbers 0 .. 15. Owns arithmetic on whole arrays; files, and what
to do with the order of channels that GPTQ's `g_idx` may ask for, are the loader's.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32

_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


class Int4Weight(NamedTuple):
    """A matrix [A, C] in 4 bits; rows of `q` are columns of the matrix, as the tensor core asks."""

    q: Int[Array, "C A"]  # jnp.int4
    scale: Float32[Array, "g C"]
    low: Float32[Array, "g C"] | None = None  # None where zero is -8 .. 7's own

    @property
    def group_size(self) -> int:
        return self.q.shape[1] // self.scale.shape[0]


def dequantize(weight: Int4Weight) -> Float[Array, "A C"]:
    """The matrix, in float32."""
    q = weight.q.T.astype(jnp.float32)
    scale = jnp.repeat(weight.scale, weight.group_size, axis=0)
    if weight.low is None:
        return q * scale
    return q * scale + jnp.repeat(weight.low, weight.group_size, axis=0)


def from_gptq(
    qweight: Int32[np.ndarray, "A8 C"],
    qzeros: Int32[np.ndarray, "g C8"],
    scales: Float[np.ndarray, "g C"],
    *,
    zero_offset: int = 1,
) -> Int4Weight:
    """`zero_offset` is 1 where zeros were stored less one, as AutoGPTQ's first format has them."""
    numbers = _unpack(qweight).transpose(0, 2, 1).reshape(-1, qweight.shape[1])  # [A, C]
    zeros = _unpack(qzeros).reshape(len(qzeros), -1) + zero_offset  # [g, C]
    return _affine(numbers, zeros, scales)


def from_awq(
    qweight: Int32[np.ndarray, "A C8"],
    qzeros: Int32[np.ndarray, "g C8"],
    scales: Float[np.ndarray, "g C"],
) -> Int4Weight:
    """From AutoAWQ's GEMM format."""
    back = np.argsort(_AWQ_ORDER)
    numbers, zeros = (
        _unpack(packed)[..., back].reshape(len(packed), -1) for packed in (qweight, qzeros)
    )
    return _affine(numbers, zeros, scales)


def _unpack(packed: Int32[np.ndarray, "rows columns"]) -> Int[np.ndarray, "rows columns 8"]:
    """The eight numbers of 4 bits in each of 32, the lowest first."""
    shifts = np.arange(0, 32, 4, dtype=np.uint32)
    numbers: Int[np.ndarray, "rows columns 8"] = packed.view(np.uint32)[..., None] >> shifts & 15
    return numbers.astype(np.int32)


def _affine(
    numbers: Int[np.ndarray, "A C"],
    zeros: Int[np.ndarray, "g C"],
    scales: Float[np.ndarray, "g C"],
) -> Int4Weight:
    """scale * (number - zero) = scale * q + low, q = number - 8, low = scale * (8 - zero)."""
    scale = scales.astype(np.float32)
    q = jnp.asarray(np.ascontiguousarray((numbers - 8).T), jnp.int8).astype(jnp.int4)
    low = None if (zeros == 8).all() else jnp.asarray(scale * (8 - zeros))
    return Int4Weight(q, jnp.asarray(scale), low)
