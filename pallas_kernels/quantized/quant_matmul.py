"""Tokens times weights of 4 or 8 bits with a scale a group.

Few tokens go through a kernel that reads the bits only. From `_MANY` tokens on the product is
bound by arithmetic, and 16-bit weights made once a call cost little beside it; GPUs without a
kernel make them for few tokens too.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from pallas_kernels.dispatch import Backend, resolve, traced_device
from pallas_kernels.errors import KernelError
from pallas_kernels.quantized.weights import (
    PLANE,
    WORDS_OF_BLOCK,
    QuantizedWeight,
    bits_of,
    dequantize,
    group_size,
    in_word_order,
    scaled,
    shape_of,
)
from pallas_kernels.tuning import tuned

_MANY = 512
_COLUMNS = 64  # whose weights, in float32, a core's cache holds


def quant_matmul(
    x: Float[Array, "M A"], weight: QuantizedWeight, *, backend: Backend | None = None
) -> Float[Array, "M C"]:
    """x W, accumulated in float32.

    Specification: `quant_matmul_reference`.

    Raises:
        KernelError: the GPU's kernel does not take these sizes.
    """
    found = resolve(backend)
    if found is Backend.XLA and traced_device().platform == "cpu":
        return _by_planes(x, weight)
    if found is Backend.XLA or x.shape[0] >= _MANY:
        return x @ dequantize(weight).astype(x.dtype)
    from pallas_kernels.quantized.mosaic_quant import choose_splits, mosaic_quant_matmul

    (A, C), gpu = shape_of(weight), traced_device()
    facts = {
        "M": x.shape[0], "A": A, "C": C, "group": group_size(weight), "bits": bits_of(weight),
    }  # fmt: skip
    tiling = tuned("quant_matmul", facts, gpu.kind)
    splits = tiling["splits"] if tiling else choose_splits(C, x.shape[0], gpu.num_cores)
    return mosaic_quant_matmul(x, weight, splits=splits)


def _by_planes(x: Float[Array, "M A"], weight: QuantizedWeight) -> Float[Array, "M C"]:
    """For CPUs: a few columns at a time, one product for each number in a word.

    Tokens, which are few, go into the order of the words: weights are shifted, masked and scaled,
    but never moved, and those of 64 columns stay in the cache.
    """
    kind, bits, (A, C) = type(weight), bits_of(weight), shape_of(weight)
    if group_size(weight) % PLANE:
        raise KernelError(f"Groups are a multiple of {PLANE}, not {group_size(weight)}.")
    tokens, in_word = in_word_order(x.astype(jnp.float32), bits), 32 // bits
    block = PLANE * in_word // 2  # rows of the matrix that lie in the same words
    starts = np.arange(0, A, block)
    few = math.gcd(C, _COLUMNS)

    def of_columns(part: tuple[Array, ...]) -> Float[Array, "few M"]:
        words, *scales = part
        found = jnp.zeros((few, x.shape[0]), jnp.float32)
        for i in range(in_word):
            plane, half = i % (in_word // 2), i // (in_word // 2)
            group = (starts + PLANE * plane) // group_size(weight)
            here = [jnp.repeat(s[:, group], WORDS_OF_BLOCK, axis=1) for s in scales]
            n = words >> 16 * half + bits * plane & 2**bits - 1
            found += jnp.dot(scaled(kind, n, *here), tokens[i].T)
        return found

    arrays = [weight.words, *(values.T for values in weight[1:] if values is not None)]
    parts = tuple(array.reshape(C // few, few, -1) for array in arrays)
    found: Array = lax.map(of_columns, parts)
    return found.reshape(C, -1).T.astype(x.dtype)
