"""What every kernel in Mosaic GPU needs and its API lacks: one place that knows the interpreter.

On a GPU values live in layouts, registers spread over a warpgroup; the interpreter knows none.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

_gpu: Any = plgpu  # JAX 0.10 has no InterpretGPUParams, and no version exports ACC by name
_pallas: Any = pl  # run_scoped has no annotations


def interpreter(interpret: bool) -> Any:
    """The argument `interpret` of a kernel: the interpreter watches for races."""
    return _gpu.InterpretGPUParams(detect_races=True) if interpret else False


def product(a: Any, b: Any, shape: tuple[int, int]) -> Any:
    """a @ b on the tensor cores of one warpgroup, in float32; `b` lies in shared memory."""

    def run(acc: Any) -> Any:
        plgpu.wgmma(acc, a, b)
        return acc[...]

    return _pallas.run_scoped(run, _gpu.ACC(shape, jnp.float32))


def spread(vector: Any, like: Any) -> Any:
    """A number a column as an array of the shape of `like`."""
    return lax.broadcast_in_dim(vector, like.shape, [1])


def cast(x: Any, layout: Any, interpret: bool) -> Any:
    """`x` in a layout."""
    return x if interpret else plgpu.layout_cast(x, layout)


def row_numbers(shape: tuple[int, ...], interpret: bool) -> Any:
    """The number of each row, in the registers that hold a product."""
    if interpret:
        return lax.broadcasted_iota(jnp.int32, shape, 0)
    return plgpu.broadcasted_iota(jnp.int32, shape, 0, layout=plgpu.Layout.WGMMA)
