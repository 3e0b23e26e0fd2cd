"""Tokens times weights of 4 bits with a scale a group.

Few tokens go through a kernel that reads 4 bits a weight. From `_MANY` tokens on the product is
bound by arithmetic, and 16-bit weights made once a call cost little beside it.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from pallas_kernels.dispatch import Backend, resolve, traced_device
from pallas_kernels.quantized.weights import Int4Weight, dequantize
from pallas_kernels.tuning import tuned

_MANY = 512


def quant_matmul(
    x: Float[Array, "M A"], weight: Int4Weight, *, backend: Backend | None = None
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

    (C, A), gpu = weight.q.shape, traced_device()
    facts = {"M": x.shape[0], "A": A, "C": C, "group": weight.group_size}
    found = tuned("quant_matmul", facts, gpu.kind)
    splits = found["splits"] if found else choose_splits(C, x.shape[0], gpu.num_cores)
    return mosaic_quant_matmul(x, weight, splits=splits)
