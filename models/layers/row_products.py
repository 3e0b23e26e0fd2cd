"""Products of few rows with a large matrix: a CPU does them as sums of products of parts of both.

Owns how many parts. Knows nothing of layers.
"""

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pallas_kernels.dispatch import traced_device

_LARGE = 2**18  # entries: a MiB, which a core's own cache does not hold
_PARTS = 4  # of one row; 2 and 8 were 4 and 2 % slower
_MOST_ROWS = 48  # of 64, parts took 1.1 to 2 times as long
_DEPTHS = (64, 128, 256)  # inputs of a part of several rows; 48 and 96 were as fast
_LEAST_PART = 2**17  # entries at least: half of that took 1.1 to 1.6 times as long as no parts
_WIDE = 2048  # outputs; a matrix of 2048 x 768 took 1.2 times as long in parts
_PAGE = 1024  # outputs: 4 KiB, at which rows of a matrix get into each other's way in a cache
_OWN_CACHE = 2 * 2**20  # bytes
_SUMS_FAST = jax.__version_info__ >= (0, 11)  # with 0.10, 16 rows in parts took up to 2.6 as long
_SECOND_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")  # 2048K


def row_product(
    x: Float[Array, "*T inputs"],
    kernel: Float[Array, "inputs outputs"],
    dtype: DTypeLike | None = None,
) -> Float[Array, "*T outputs"]:
    """x W, in `dtype` or that of `x`.

    One row: a thread then reads whole rows of the matrix, one after the other, where XLA's own
    product gives it half of each. All products of a decode step of a Llama of 110M parameters took
    5.3 ms for 6.5 (two cores of an EPYC, JAX 0.11.2); wide matrices were read no faster.

    Several rows: of a wide matrix XLA reads many rows at once, of which those that lie multiples of
    4 KiB apart share a place in the nearest cache; those of a part have room. Products of 16 rows
    took 0.45 to 0.78 of the time with matrices of 2048 outputs and more, and 0.54 to 0.70 with 1024
    outputs (768 to 8192 inputs; two cores of a Xeon, JAX 0.11.2).
    """
    parts = _num_parts(x, kernel)
    if parts == 1:
        return jnp.dot(x, kernel, preferred_element_type=dtype)
    inputs, outputs = kernel.shape
    each = inputs // parts
    rows = "" if x.size == inputs else "r"
    sums = jnp.einsum(
        f"{rows}pi,pio->p{rows}o",
        x.reshape(*(-1 for _ in rows), parts, each),
        kernel.reshape(parts, each, outputs),
        preferred_element_type=dtype,
    )
    return sums.sum(0).reshape(*x.shape[:-1], outputs)


def _num_parts(x: Float[Array, "*T inputs"], kernel: Float[Array, "inputs outputs"]) -> int:
    """In how many the product is done; 1 where it is no CPU's, or gains nothing.

    Several rows: only where a core has as much cache as those of Intel's servers. On an EPYC, that
    has half of it at most and a faster one behind, products of 2 rows and more took longer.
    """
    inputs, outputs = kernel.shape
    rows = x.size // inputs
    if (
        not x.dtype == kernel.dtype == jnp.float32
        or kernel.size < _LARGE
        or traced_device().platform != "cpu"
    ):
        return 1
    if rows == 1:
        return _PARTS if inputs % _PARTS == 0 and outputs <= 2 * inputs else 1
    if rows > _MOST_ROWS or not _SUMS_FAST or _own_cache() < _OWN_CACHE:
        return 1
    if outputs < _WIDE and outputs % _PAGE:
        return 1
    depths = (each for each in _DEPTHS if inputs % each == 0 and each * outputs >= _LEAST_PART)
    return inputs // next(depths, inputs)


@cache
def _own_cache() -> int:
    """Bytes of the second cache of a core; 0 where the system does not say."""
    try:
        return int(_SECOND_CACHE.read_text().strip().removesuffix("K")) * 1024
    except (OSError, ValueError):
        return 0
