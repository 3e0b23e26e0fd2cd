"""Products with quantised weights: what they are."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float8e4m3fn, Int8, Num

from pallas_kernels.quantized.weights import QuantizedWeight, dequantize


def quant_matmul_reference(x: Float[Array, "M A"], weight: QuantizedWeight) -> Float[Array, "M C"]:
    """Numbers of 4 or 8 bits with a scale a group."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return (x.astype(wide) @ dequantize(weight).astype(wide)).astype(x.dtype)


def scaled_matmul_reference(
    x: Float[Array, "M A"], w: Num[Array, "C A"], scale: Float[Array, " C"]
) -> Float[Array, "M C"]:
    """8 bits with a scale a column."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    matrix = w.astype(wide) * scale.astype(wide)[:, None]
    return (x.astype(wide) @ matrix.T).astype(x.dtype)


def int8_matmul_reference(
    x: Float[Array, "M A"], w: Int8[Array, "C A"], scale: Float[Array, " C"]
) -> Float[Array, "M C"]:
    """The same with each token rounded to 255 steps, its largest magnitude the last."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    step = jnp.abs(wide).max(axis=1, keepdims=True) / 127
    rounded = jnp.where(step > 0, jnp.round(wide / jnp.where(step > 0, step, 1)), 0)
    return scaled_matmul_reference(rounded * step, w, scale).astype(x.dtype)


def fp8_matmul_reference(
    x: Float[Array, "M A"], w: Float8e4m3fn[Array, "C A"], scale: Float[Array, " C"]
) -> Float[Array, "M C"]:
    """The same with each token in e4m3, its largest magnitude 448."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    step = jnp.abs(wide).max(axis=1, keepdims=True) / 448
    step = jnp.where(step > 0, step, 1)
    rounded = (wide / step).astype(jnp.float8_e4m3fn).astype(wide.dtype)
    return scaled_matmul_reference(rounded * step, w, scale).astype(x.dtype)
