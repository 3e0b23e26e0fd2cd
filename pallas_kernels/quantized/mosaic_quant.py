"""Weights of 4 or 8 bits times few tokens, for Hopper, in Pallas Mosaic GPU.

    words [128, step] ── TMA ─> registers ─ unpack ─ x scale + low ─> 16 bits ─┐
    x [tokens, step] ─── TMA ──────────────────────────────────────────────────┴ wgmma ─> sum
    scale, low [g, 128]  TMA ─> registers

Operands are swapped: columns of the matrix are the rows of the tensor core's product, 64 for each
of two warpgroups, and tokens its columns, 8 at the least. A third warpgroup fetches. Steps are
divided among `splits` blocks where columns are few; two blocks share a core where tokens are few,
80 KiB each in flight. Weights are scaled before the product, in the tokens' 16 bits: any group then
is one sum, and small groups and minima cost no sums of tokens.

A core reads 21 bytes a clock (4.8 TB/s, 132 cores, 1.75 GHz) and starts 128 lanes of instructions:
25 for 8 weights of 4 bits, 49 for 8 of 8 bits. Compiled, the loop has 20 for evenly spaced weights,
22 with minima by 32, 28 for 8 bits, and 41 for NF4, which so reaches three fifths of the bandwidth.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float

from pallas_kernels.errors import KernelError
from pallas_kernels.mosaic import accumulate, cast, interpreter, load
from pallas_kernels.quantized.mosaic_unpack import WORDS, join, planes
from pallas_kernels.quantized.weights import (
    PLANE,
    WORDS_OF_BLOCK,
    QuantizedWeight,
    bits_of,
    group_size,
    shape_of,
)

_ROWS, _GROUPS = 64, 2  # of a product; warpgroups that compute
WIDTH = _ROWS * _GROUPS  # columns of a block
_FEW = 32  # tokens with which two blocks find room on a core
_COMPUTING, _FETCHING = 232, 40  # registers of a thread, with more
_SHARED_BYTES = 220 * 1024  # of a core, with what barriers take
_TOKENS = (8, 16, 24, 32, 48, 64, 96, 128)
SPLITS = (1, 2, 4, 8, 16)


def choose_splits(columns: int, tokens: int, num_cores: int) -> int:
    """Into how many blocks the steps are divided, by rule: enough to give every core one."""
    blocks = columns // WIDTH * -(-tokens // _TOKENS[-1])
    return next((n for n in SPLITS if blocks * n >= num_cores), SPLITS[-1])


def choose_step(rows: int, group: int, bits: int, tokens: int) -> int:
    """Rows of the matrix in a step: whole groups, or a part of one; 16 KiB where tokens are few.

    Raises:
        KernelError: groups do not fit.
    """
    for step in (256, 128) if bits == 4 and tokens <= _FEW else (128,):
        if rows % step == 0 and (step % group == 0 or group % step == 0) and group % PLANE == 0:
            return step
    raise KernelError(
        "The product with quantised weights on this GPU takes rows in a multiple of 128 in groups "
        f"of 32, 64, or a multiple of 128, not {rows} in groups of {group}."
    )


def mosaic_quant_matmul(
    x: Float[Array, "M A"], weight: QuantizedWeight, *, splits: int, interpret: bool = False
) -> Float[Array, "M C"]:
    """`quant_matmul` of few tokens.

    Raises:
        KernelError: groups do not fit, columns are no multiple of 128, or the tokens are not in 16
            bits.
    """
    M, (A, C) = x.shape[0], shape_of(weight)
    for holds, limit in (
        (C % WIDTH == 0, f"columns in a multiple of {WIDTH}, not {C}"),
        (x.dtype in (jnp.bfloat16, jnp.float16), f"tokens in 16 bits, not {x.dtype}"),
    ):
        if not holds:
            raise KernelError(f"The product with quantised weights on this GPU takes {limit}.")
    size = next((n for n in _TOKENS if n >= M), _TOKENS[-1])
    step = choose_step(A, group_size(weight), bits_of(weight), size)
    x = jnp.pad(x, ((0, -M % size), (0, 0)))
    whole = jax.ShapeDtypeStruct((x.shape[0], C), x.dtype)
    parts = jax.ShapeDtypeStruct((splits, C, x.shape[0]), jnp.float32)
    kind = type(weight)
    operands = [x, *(array for array in weight if array is not None)]
    out: Array = plgpu.kernel(
        partial(
            quant_matmul_kernel, kind=kind, group=group_size(weight), splits=splits,
            interpret=interpret,
        ),
        out_type=whole if splits == 1 else parts,
        grid=(C // WIDTH, x.shape[0] // size, splits),
        grid_names=("column", "token", "split"),
        num_threads=_GROUPS + 1,
        thread_name="warpgroup",
        scratch_types=_scratch(operands, size, step, group_size(weight), splits),
        compiler_params=plgpu.CompilerParams(approx_math=True),
        interpret=interpreter(interpret),
    )(*operands)  # fmt: skip
    if splits > 1:
        out = out.sum(0).T.astype(x.dtype)
    return out[:M]


def _scratch(
    operands: list[Array], size: int, step: int, group: int, splits: int
) -> tuple[tuple[Any, ...], Any, Any, Any]:
    """Shared memory of one block: what is in flight, the result, barriers."""
    x, words, *scales = operands
    width, groups = step * words.shape[1] // x.shape[1], max(1, step // group)
    out = (  # a part goes as it lies
        plgpu.SMEM((_GROUPS, size, _ROWS), x.dtype)
        if splits == 1
        else plgpu.SMEM((_GROUPS, _ROWS, size), jnp.float32)
    )
    bytes_of_stage = (
        2 * size * step
        + 4 * WIDTH * width
        + sum(WIDTH * groups * scale.dtype.itemsize for scale in scales)
    )  # fmt: skip
    room = _SHARED_BYTES // (2 if size <= _FEW else 1) - WIDTH * size * (2 if splits == 1 else 4)
    stages = max(2, min(6, room // bytes_of_stage))
    tiles = (
        _swizzled((stages, size, step), x.dtype, 128),
        _swizzled((stages, WIDTH, width), words.dtype, 64),
        *(plgpu.SMEM((stages, groups, WIDTH), scale.dtype) for scale in scales),
    )
    return (
        tiles,
        out,
        plgpu.Barrier(num_arrivals=len(tiles), num_barriers=stages),
        plgpu.Barrier(num_arrivals=_GROUPS, num_barriers=stages),
    )


def _swizzled(shape: tuple[int, ...], dtype: Any, width: int) -> Any:
    tiling = plgpu.TilingTransform((8, width // jnp.dtype(dtype).itemsize))
    return plgpu.SMEM(shape, dtype, transforms=(tiling, plgpu.SwizzleTransform(width)))


def quant_matmul_kernel(
    *refs: Any, kind: type[QuantizedWeight], group: int, splits: int, interpret: bool
) -> None:
    """One block: 128 columns, one tile of tokens, one part of the rows."""
    *operands, result, tiles, out, ready, free = refs
    me, column, token, split = (
        lax.axis_index(name) for name in ("warpgroup", "column", "token", "split")
    )
    stages, size, rows = tiles[0].shape
    groups = tiles[2].shape[1]
    all_steps = operands[0].shape[1] // rows
    each = -(-all_steps // splits)
    begin = split * each
    steps = jnp.minimum(all_steps - begin, each)
    tokens, columns = pl.ds(token * size, size), pl.ds(column * WIDTH, WIDTH)

    def fetch(step: Any, _: Any) -> None:
        slot, g = lax.rem(step, jnp.int32(stages)), (begin + step) * rows // group
        pl.when(step >= stages)(partial(plgpu.barrier_wait, free.at[slot]))
        width = tiles[1].shape[2]
        for operand, tile, part in zip(
            operands,
            tiles,
            [
                (tokens, pl.ds((begin + step) * rows, rows)),
                (columns, pl.ds((begin + step) * width, width)),
                *[(pl.ds(g, groups), columns)] * len(operands[2:]),
            ],
            strict=True,
        ):
            plgpu.copy_gmem_to_smem(operand.at[*part], tile.at[slot], ready.at[slot])

    @pl.when(me == _GROUPS)
    def _fetch() -> None:
        if size > _FEW:
            plgpu.set_max_registers(_FETCHING, action="decrease")
        lax.fori_loop(0, steps, fetch, None)
        for back in range(stages):  # nobody else waits for the last ones
            slot = lax.rem(steps + back, jnp.int32(stages))
            pl.when(steps + back >= stages)(partial(plgpu.barrier_wait, free.at[slot]))

    @pl.when(me < _GROUPS)
    def _compute() -> None:
        if size > _FEW:
            plgpu.set_max_registers(_COMPUTING, action="increase")

        def add(step: Any, acc: Any) -> Any:
            slot = lax.rem(step, jnp.int32(stages))
            plgpu.barrier_wait(ready.at[slot])
            for weights, x in _operands(tiles, slot, me, kind, group, interpret):
                acc = accumulate(acc, weights, x, interpret)
            plgpu.barrier_arrive(free.at[slot])
            return acc

        start = cast(jnp.zeros((_ROWS, size), jnp.float32), plgpu.Layout.WGMMA, interpret)
        acc = lax.fori_loop(0, steps, add, start)
        if splits == 1:
            out.at[me].transpose((1, 0))[...] = acc.astype(out.dtype)
        else:
            out[me] = acc
        plgpu.commit_smem()
        here = pl.ds(column * WIDTH + me * _ROWS, _ROWS)
        target = result.at[tokens, here] if splits == 1 else result.at[split, here, tokens]
        plgpu.copy_smem_to_gmem(out.at[me], target)
        plgpu.wait_smem_to_gmem(0)


def _operands(
    tiles: Any, slot: Any, me: Any, kind: type[QuantizedWeight], group: int, interpret: bool
) -> Iterator[tuple[Any, Any]]:
    """A step's products, of one block of words each: weights in registers, tokens in memory."""
    x, words, *scales = tiles
    mine = pl.ds(me * _ROWS, _ROWS)

    def of_group(g: int) -> list[Any]:
        found = (load(values.at[slot, g, mine]) for values in scales)
        by_row = plgpu.Layout.WGMMA.reduce(1)
        return [cast(values, by_row, interpret).astype(x.dtype) for values in found]

    values = [of_group(g) for g in range(scales[0].shape[1])]
    row = 0
    for word in range(0, words.shape[2], WORDS_OF_BLOCK):
        block = cast(load(words.at[slot, mine, pl.ds(word, WORDS_OF_BLOCK)]), WORDS, interpret)
        weights: list[Any] = []
        for plane in planes(block, kind, len(scales) > 1, x.dtype, interpret):
            of = values[(row + PLANE * len(weights)) // group]
            scale, *low = (lax.broadcast_in_dim(value, plane.shape, [0]) for value in of)
            weights.append(plane * scale + low[0] if low else plane * scale)
        rows = PLANE * len(weights)
        yield join(weights, interpret), x.at[slot, :, pl.ds(row, rows)].transpose((1, 0))
        row += rows
