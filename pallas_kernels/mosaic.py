"""What every kernel in Mosaic GPU needs and its API lacks: one place that knows the interpreter.

On a GPU values live in layouts, registers spread over a warpgroup; the interpreter knows none.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

_gpu: Any = plgpu  # JAX 0.10 has no InterpretGPUParams, and no version exports ACC by name
_pallas: Any = pl  # run_scoped has no annotations


def interpreter(interpret: bool) -> Any:
    """The argument `interpret` of a kernel: the interpreter watches for races."""
    return _gpu.InterpretGPUParams(detect_races=True) if interpret else False


def load(ref: Any) -> Any:
    """What `ref` holds, into registers; its layout is whatever its use asks for."""
    return _gpu.load(ref, optimized=False)


def load_as(ref: Any, layout: Any, interpret: bool) -> Any:
    """What `ref` holds, into registers of this layout."""
    return load(ref) if interpret else _gpu.load(ref, layout=layout, optimized=False)


def product(a: Any, b: Any, shape: tuple[int, int], meanwhile: Callable[[], Any] = tuple) -> Any:
    """a @ b on the tensor cores of one warpgroup, in float32; `b` lies in shared memory.

    `meanwhile` is called when the product has been started.
    """

    def run(acc: Any) -> Any:
        plgpu.wgmma(acc, a, b)
        meanwhile()
        return acc[...]

    return _pallas.run_scoped(run, _gpu.ACC(shape, jnp.float32))


def register_product(a: Any, b: Any, shape: tuple[int, int], interpret: bool) -> Any:
    """a @ b on the tensor cores; `a` in registers, `b` in shared memory."""
    if interpret:
        return accumulate(jnp.zeros(shape, jnp.float32), a, b, interpret)
    return product(a, b, shape)


def accumulate(acc: Any, a: Any, b: Any, interpret: bool) -> Any:
    """acc + a @ b on the tensor cores; `acc` in registers, `b` in shared memory, `a` in either."""
    if interpret:
        return acc + _interpreted_product(a, b, acc.shape)

    def run(ref: Any) -> None:
        plgpu.wgmma(ref, a, b)

    return _pallas.run_state(run)(plgpu.WGMMAAccumulatorRef.init(acc))


def _interpreted_product(a: Any, b: Any, shape: tuple[int, int]) -> Any:
    """The interpreter knows no operand in registers."""
    if not isinstance(a, jax.Array):
        return product(a, b, shape)
    values = b[...]
    plgpu.commit_smem()  # it has been read as the tensor cores would have
    return jnp.dot(a, values, preferred_element_type=jnp.float32)


def spread(vector: Any, like: Any) -> Any:
    """A number a column as an array of the shape of `like`."""
    return lax.broadcast_in_dim(vector, like.shape, [1])


def across(vector: Any, like: Any) -> Any:
    """A number a row as an array of the shape of `like`."""
    return lax.broadcast_in_dim(vector, like.shape, [0])


def cast(x: Any, layout: Any, interpret: bool) -> Any:
    """`x` in a layout."""
    return x if interpret else plgpu.layout_cast(x, layout)


def row_numbers(shape: tuple[int, ...], interpret: bool) -> Any:
    """The number of each row, in the registers that hold a product."""
    return _numbers(shape, 0, interpret)


def column_numbers(shape: tuple[int, ...], interpret: bool) -> Any:
    """The number of each column, in the registers that hold a product."""
    return _numbers(shape, 1, interpret)


def vector_numbers(length: int, layout: Any, interpret: bool) -> Any:
    """0, 1, 2, ... in a layout of one axis."""
    if interpret:
        return lax.broadcasted_iota(jnp.int32, (length,), 0)
    return plgpu.broadcasted_iota(jnp.int32, (length,), 0, layout=layout)


def zero_rows_after(tile: Any, last: Any, interpret: bool) -> None:
    """Rows of a tile in shared memory beyond number `last` become zero, whatever they hold.

    In pieces of [64, 64]: each takes 16 registers, where a kernel's loop has few left.
    """
    for row in range(0, tile.shape[0], 64):
        for column in range(0, tile.shape[1], 64):
            piece = tile.at[pl.ds(row, 64), pl.ds(column, 64)]
            kept = row_numbers(piece.shape, interpret) + row <= last
            piece[...] = jnp.where(kept, piece[...], jnp.zeros_like(piece[...]))
    plgpu.commit_smem()


def _numbers(shape: tuple[int, ...], axis: int, interpret: bool) -> Any:
    if interpret:
        return lax.broadcasted_iota(jnp.int32, shape, axis)
    return plgpu.broadcasted_iota(jnp.int32, shape, axis, layout=plgpu.Layout.WGMMA)
