"""Tokens times weights of 8 bits, int8 or float8, with one scale a column: XLA's own products.

    scaled_matmul   (x . w) scale                        weights become x's type on the way in
    int8_matmul     (round(x / s) . w) s scale           8 bits times 8, summed in int32
    fp8_matmul      (e4m3(x / s) . w) s scale            likewise, summed in float32

XLA for Hopper reads the 8 bits and converts them inside of its product, so that no kernel of ours
has anything to add. On CPUs XLA has no such product: there the weights of a few columns at a time
become float32, or, in `int8_matmul`, tokens become int8 as well, a scale for each. `fp8_matmul` is
for GPUs: CPUs have no such numbers.
"""

import math

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float8e4m3fn, Float32, Int8, Num

from pallas_kernels.across import product_across
from pallas_kernels.dispatch import Backend, resolve

_COLUMNS = 64  # whose weights, in float32, a core's cache holds
E4M3_MAX = 448.0
_ACROSS = (((1,), (1,)), ((), ()))  # both operands' last axes: as 8-bit tensor cores want them


def scaled_matmul(
    x: Float[Array, "M A"],
    w: Num[Array, "C A"],
    scale: Float[Array, " C"],
    *,
    backend: Backend | None = None,
) -> Float[Array, "M C"]:
    """x W, accumulated in float32; `w` in int8 or float8.

    Specification: `scaled_matmul_reference`.
    """
    if resolve(backend) is not Backend.XLA:
        found = lax.dot_general(x, w.astype(x.dtype), _ACROSS, preferred_element_type=jnp.float32)
        return (found * scale).astype(x.dtype)
    few, wide = math.gcd(len(w), _COLUMNS), x.astype(jnp.float32)

    def of_columns(part: Num[Array, "few A"]) -> Float32[Array, "few M"]:
        part_of_result: Array = lax.dot_general(part.astype(jnp.float32), wide, _ACROSS)
        return part_of_result

    parts: Array = lax.map(of_columns, w.reshape(-1, few, w.shape[1]))
    return (parts.reshape(len(w), -1).T * scale).astype(x.dtype)


def int8_matmul(
    x: Float[Array, "M A"],
    w: Int8[Array, "C A"],
    scale: Float[Array, " C"],
    dtype: DTypeLike | None = None,
) -> Float[Array, "M C"]:
    """x W with each token rounded to 8 bits by its largest magnitude; in `dtype` or that of `x`.

    Specification: `int8_matmul_reference`.
    """
    n, token_scale = quantize_tokens(x)
    rows = jnp.pad(n, ((0, max(0, 2 - len(n))), (0, 0)))  # XLA's CPU has a fast path from two on
    found = product_across(rows, w, jnp.int32)[: len(n)]
    return (found.astype(jnp.float32) * token_scale[:, None] * scale).astype(dtype or x.dtype)


def fp8_matmul(
    x: Float[Array, "M A"],
    w: Float8e4m3fn[Array, "C A"],
    scale: Float[Array, " C"],
    dtype: DTypeLike | None = None,
) -> Float[Array, "M C"]:
    """x W with each token rounded to e4m3, its largest magnitude to 448; in `dtype` or that of `x`.

    Specification: `fp8_matmul_reference`.
    """
    wide = x.astype(jnp.float32)
    largest = jnp.abs(wide).max(axis=1, keepdims=True)
    step = jnp.where(largest > 0, largest / E4M3_MAX, 1.0)
    n = jnp.clip(wide / step, -E4M3_MAX, E4M3_MAX).astype(jnp.float8_e4m3fn)
    found = lax.dot_general(n, w, _ACROSS, preferred_element_type=jnp.float32)
    return (found * step * scale).astype(dtype or x.dtype)


def quantize_tokens(
    x: Float[Array, "M A"],
) -> tuple[Int8[Array, "M A"], Float32[Array, " M"]]:
    """Each token as int8 times a scale; 1 where a token is all zeros."""
    wide = x.astype(jnp.float32)
    largest = jnp.abs(wide).max(axis=1)
    scale = jnp.where(largest > 0, largest / 127, 1.0)
    return jnp.round(wide / scale[:, None]).astype(jnp.int8), scale
