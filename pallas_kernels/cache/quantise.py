"""Keys and values in eight bits, with a scale for each token and head.

A token is quantised once, when it is written, by what it is itself: no calibration, and no page
that has to be written again. fp8 is e4m3, whose largest number is 448.
"""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Num

LARGEST = {"int8": 127.0, "float8_e4m3fn": 448.0}
QUANTISED = tuple(LARGEST)  # the dtypes of pages that come with scales
SMALLEST_SCALE = 2.0**-100  # of a vector of zeros: dividing by it gives zeros


def is_quantised(dtype: DTypeLike) -> bool:
    """Whether pages of this dtype come with scales."""
    return jnp.dtype(dtype).name in LARGEST


def quantise(
    x: Float[Array, "... H"], dtype: DTypeLike
) -> tuple[Num[Array, "... H"], Float32[Array, "..."]]:
    """The nearest numbers of `dtype` (`QUANTISED`) to x / scale, and the scale of each vector.

    The entry of largest magnitude becomes the largest number of `dtype`.
    """
    largest = LARGEST[jnp.dtype(dtype).name]
    x = x.astype(jnp.float32)
    scale = jnp.maximum(jnp.max(jnp.abs(x), axis=-1) / largest, SMALLEST_SCALE)
    ratio = jnp.clip(x / scale[..., None], -largest, largest)
    if jnp.issubdtype(dtype, jnp.integer):
        ratio = jnp.round(ratio)
    return ratio.astype(dtype), scale


def dequantise(x: Num[Array, "... H"], scale: Float32[Array, "..."]) -> Float32[Array, "... H"]:
    """x * scale, in float32."""
    return x.astype(jnp.float32) * scale[..., None]
