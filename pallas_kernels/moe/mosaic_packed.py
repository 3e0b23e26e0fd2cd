"""Products of tiles of tokens with experts' weights of 8 and 4 bits, for Hopper, in Mosaic GPU.

    words of the expert [64, W] ─ TMA ─> registers, bfloat16 [64, K] ─┐
    tokens of the tile  [Q, K]  ─ TMA ────────────────────────────────┴─ wgmma ─> [64, Q]

As `mosaic_grouped`, but weights go through registers: one warpgroup turns the words of 64 columns
into numbers, in the very places where the tensor core wants its left operand. Scales of MXFP4 are
powers of two and go into the numbers; those of groups multiply the sums of a step, and those of
whole columns the result. A last warpgroup fetches, as many steps ahead as memory holds.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Int32

from pallas_kernels.errors import KernelError
from pallas_kernels.moe.activations import activate, num_parts
from pallas_kernels.moe.formats import FORMATS, MX_GROUP, Mxfp4Experts, PackedExperts
from pallas_kernels.moe.mosaic_grouped import choose_groups, choose_stages
from pallas_kernels.moe.mosaic_numbers import to_numbers
from pallas_kernels.mosaic import accumulate, across, cast, interpreter, load, register_product

_ROWS = 64  # of the tensor core's product
_STEPS = (128, 64)  # numbers of a column that are fetched together
_FEW, _MOST = 32, 64  # tokens that leave registers for the longer step, and for any


def mosaic_packed(
    x: Float[Array, "R A"],
    weight: PackedExperts,
    bias: Float[Array, "E C"] | None,
    *,
    activation: str | None,
    expert: Int32[Array, " tiles"],
    size: int,
    interpret: bool = False,
) -> Float[Array, "M _"]:
    """`mosaic_grouped` of packed weights.

    Raises:
        KernelError: columns or rows of the weights are no multiple of 64, groups are neither
            whole columns nor multiples of 64, tiles too large or tokens not in bfloat16.
    """
    halves, form = num_parts(activation), FORMATS[type(weight)]
    columns, A = weight.words.shape[1] // halves, x.shape[1]
    mx, group = isinstance(weight, Mxfp4Experts), A // weight.scale.shape[1]
    step = _choose_step(form.name, columns, A, A if mx else group, size, x.dtype)
    groups = choose_groups(columns, len(expert), size)
    width, words = groups * _ROWS, step // form.slots
    scale_rows = step // MX_GROUP if mx else 1
    stage = halves * width * (2 * words + scale_rows * weight.scale.dtype.itemsize)
    stages = choose_stages(stage + 2 * size * step, 2 * width * size, size)
    by_step = mx or group < A  # scales are fetched with the words
    swizzled = (plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128))
    packed = (plgpu.TilingTransform((8, words)), plgpu.SwizzleTransform(2 * words))
    out: Array = plgpu.kernel(
        partial(
            packed_matmul_kernel, kind=type(weight), activation=activation, groups=groups,
            has_bias=bias is not None, interpret=interpret,
        ),
        out_type=jax.ShapeDtypeStruct((len(expert) * size, columns), x.dtype),
        grid=(len(expert), columns // width),
        grid_names=("tile", "column"),
        num_threads=groups + 1,
        thread_name="warpgroup",
        scratch_types=[
            plgpu.SMEM((stages, halves, width, words), jnp.uint16, transforms=packed),
            plgpu.SMEM((stages, size, step), x.dtype, transforms=swizzled),
            *[plgpu.SMEM((stages, halves, scale_rows, width), weight.scale.dtype)] * by_step,
            plgpu.SMEM((groups, size, _ROWS), x.dtype, transforms=swizzled),
            plgpu.Barrier(num_arrivals=1 + halves * (1 + by_step), num_barriers=stages),
            plgpu.Barrier(num_arrivals=groups, num_barriers=stages),
        ],
        compiler_params=plgpu.CompilerParams(approx_math=True),
        interpret=interpreter(interpret),
    )(
        x, weight.words, weight.scale, expert,
        *(() if bias is None else (bias,)),
    )  # fmt: skip
    return out


def _choose_step(name: str, columns: int, A: int, group: int, size: int, dtype: Any) -> int:
    """Numbers of a column that are fetched together; all of one group."""
    step = next((n for n in _STEPS[size > _FEW :] if A % n == 0 and group % n == 0), 0)
    for holds, limit in (
        (columns % _ROWS == 0 and step > 0, f"multiples of 64, not {A} x {columns} by {group}"),
        (dtype == jnp.bfloat16, f"tokens in bfloat16, not {dtype}"),
        (size <= _MOST, f"tiles of up to {_MOST} tokens, not {size}"),
    ):
        if not holds:
            raise KernelError(f"The experts' kernel for {name} on this GPU takes {limit}.")
    return step


def packed_matmul_kernel(
    x: Any, words: Any, scale: Any, expert_of: Any, *rest: Any,
    kind: Any, activation: str | None, groups: int, has_bias: bool, interpret: bool,
) -> None:  # fmt: skip
    """One block: one tile of tokens, `groups` x 64 columns of its expert."""
    bias, (out, w_tiles, x_tiles, *s_tiles, out_tile, ready, free) = (
        rest[:has_bias], rest[has_bias:],
    )  # fmt: skip
    me, tile, block = (lax.axis_index(name) for name in ("warpgroup", "tile", "column"))
    stages, halves, width, step_words = w_tiles.shape
    size, step_size = x_tiles.shape[1:]
    columns, steps = words.shape[1] // halves, x.shape[1] // step_size
    per_group = steps // scale.shape[1]  # steps that share a scale; 0 in MXFP4
    rows, expert = pl.ds(tile * size, size), expert_of[tile]
    tokens = rows if x.shape[0] > size else pl.ds(0, size)
    layout = partial(cast, interpret=interpret)
    by_row = plgpu.Layout.WGMMA.reduce(1)

    def fetch(step: Any, _: Any) -> None:
        slot = lax.rem(step, jnp.int32(stages))
        pl.when(step >= stages)(partial(plgpu.barrier_wait, free.at[slot]))
        part = pl.ds(step * step_size, step_size)
        plgpu.copy_gmem_to_smem(x.at[tokens, part], x_tiles.at[slot], ready.at[slot])
        for half in range(halves):
            chosen = pl.ds(half * columns + block * width, width)
            source = words.at[expert, chosen, pl.ds(step * step_words, step_words)]
            plgpu.copy_gmem_to_smem(source, w_tiles.at[slot, half], ready.at[slot])
            for scales in s_tiles:
                count = scales.shape[2]
                first = step * count if per_group == 0 else lax.div(step, jnp.int32(per_group))
                source = scale.at[expert, pl.ds(first, count), chosen]
                plgpu.copy_gmem_to_smem(source, scales.at[slot, half], ready.at[slot])

    def add(step: Any, accs: Any) -> Any:
        slot = lax.rem(step, jnp.int32(stages))
        plgpu.barrier_wait(ready.at[slot])
        mine, found = pl.ds(me * _ROWS, _ROWS), []
        for half, acc in enumerate(accs):
            of_step = [
                layout(load(s_tiles[0].at[slot, half, row, mine]), by_row)
                for row in range(s_tiles[0].shape[2] if s_tiles else 0)
            ]
            numbers = to_numbers(
                w_tiles[slot, half, mine], of_step if per_group == 0 else [], kind, interpret
            )
            turned = x_tiles.at[slot].transpose((1, 0))
            if s_tiles and per_group:
                product = register_product(numbers, turned, acc.shape, interpret)
                found.append(acc + product * across(of_step[0], acc))
            else:
                found.append(accumulate(acc, numbers, turned, interpret))
        plgpu.barrier_arrive(free.at[slot])
        return found

    @pl.when((expert < words.shape[0]) & (me == groups))
    def _fetch() -> None:
        lax.fori_loop(0, steps, fetch, None)
        for step in range(max(steps - stages, 0), steps):
            plgpu.barrier_wait(free.at[step % stages])

    @pl.when((expert < words.shape[0]) & (me < groups))
    def _compute() -> None:
        zero = layout(jnp.zeros((_ROWS, size), jnp.float32), plgpu.Layout.WGMMA)
        found = lax.fori_loop(0, steps, add, [zero] * halves)
        first = block * width + me * _ROWS
        for half in range(halves):
            mine = pl.ds(half * columns + first, _ROWS)
            if not s_tiles:
                found[half] *= across(load(scale.at[expert, 0, mine]), zero)
            if has_bias:
                found[half] += across(load(bias[0].at[expert, mine]).astype(jnp.float32), zero)
        value = activate(activation, found)
        mine = out_tile.at[me]
        mine.transpose((1, 0))[...] = value.astype(out_tile.dtype)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(mine, out.at[rows, pl.ds(first, _ROWS)])
        plgpu.wait_smem_to_gmem(0)
