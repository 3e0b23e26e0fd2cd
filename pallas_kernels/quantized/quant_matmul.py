"""Tokens times weights of 4 or 8 bits with a scale a group.

Few tokens go through a kernel that reads the bits only. From `_MANY` tokens on the product is
bound by arithmetic, and 16-bit weights made once a call cost little beside it.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from pallas_kernels.dispatch import Backend, resolve, traced_device
from pallas_kernels.quantized.weights import (
    QuantizedWeight,
    bits_of,
    dequantize,
    group_size,
    shape_of,
)
from pallas_kernels.tuning import tuned

_MANY = 512


def quant_matmul(
    x: Float[Array, "M A"], weight: QuantizedWeight, *, backend: Backend | None = None
) -> Float[Array, "M C"]:
    """x W, accumulated in float32.

    Specification: `x @ dequantize(weight)`.

    Raises:
        KernelError: the GPU's kernel does not take these sizes.
    """
    if resolve(backend) is Backend.XLA:
        return jnp.dot(x.astype(jnp.float32), dequantize(weight)).astype(x.dtype)
    if x.shape[0] >= _MANY:
        return x @ dequantize(weight).astype(x.dtype)
    from pallas_kernels.quantized.mosaic_quant import choose_splits, mosaic_quant_matmul

    (A, C), gpu = shape_of(weight), traced_device()
    facts = {
        "M": x.shape[0], "A": A, "C": C, "group": group_size(weight), "bits": bits_of(weight),
    }  # fmt: skip
    found = tuned("quant_matmul", facts, gpu.kind)
    splits = found["splits"] if found else choose_splits(C, x.shape[0], gpu.num_cores)
    return mosaic_quant_matmul(x, weight, splits=splits)
