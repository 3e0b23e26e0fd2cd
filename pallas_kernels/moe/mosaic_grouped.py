"""Products of tiles of tokens with their experts' weights, for Hopper, in Pallas Mosaic GPU.

    weights of the expert [A, 128] ─ TMA ─┐
    tokens of the tile    [Q, A]   ─ TMA ─┴─ wgmma ─> [128, Q] ─ activation ─> [Q, 128]

Operands are swapped: columns of the weights are the rows of the tensor core's product, 64 for each
of two warpgroups, so a tile of 8 tokens wastes nothing and one of 128 is as any matrix product. One
more warpgroup fetches, 64 rows of the weights at a time, as many steps ahead as memory holds: 64 KB
and more on their way to each core. In a decode step an expert has one tile, and its
weights are read once.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Int32

from pallas_kernels.dispatch import traced_device
from pallas_kernels.errors import KernelError
from pallas_kernels.moe.activations import activate, num_parts
from pallas_kernels.mosaic import across, interpreter, load

_STEP = 64  # rows of the weights that are fetched together
_ROWS = 64  # of the tensor core's product
_STAGES = 8
_FEW = 32  # tokens with which two blocks find room on a core
_SHARED_BYTES = 216 * 1024  # of a core, without barriers
_COMPUTING, _FETCHING = 232, 40  # registers of a thread


def mosaic_grouped(
    x: Float[Array, "R A"],
    weight: Float[Array, "E A C"],
    bias: Float[Array, "E C"] | None,
    *,
    activation: str | None,
    expert: Int32[Array, " tiles"],
    size: int,
    interpret: bool = False,
) -> Float[Array, "M _"]:
    """Each tile of `size` rows times its expert's weights, plus bias; then what `activation` does.

    `expert` is that of each tile, or E: its rows are left as they are. Where `x` has the rows of
    one tile only, they are every tile's.

    Raises:
        KernelError: columns or rows of the weights are no multiple of 64, or not in 16 bits.
    """
    A, M, halves = x.shape[1], len(expert) * size, num_parts(activation)
    columns = weight.shape[2] // halves
    for holds, limit in (
        (A % _STEP == 0 and columns % _ROWS == 0, f"multiples of 64, not {A} x {columns}"),
        (weight.dtype in (jnp.bfloat16, jnp.float16), f"16 bits, not {weight.dtype}"),
        (x.dtype == weight.dtype, f"the dtype of the tokens, {x.dtype}, not {weight.dtype}"),
    ):
        if not holds:
            raise KernelError(f"The experts' kernel on this GPU takes weights in {limit}.")
    groups = choose_groups(columns, len(expert), size)
    width = groups * _ROWS
    stages = choose_stages(2 * _STEP * (halves * width + size), 2 * width * size, size)
    swizzled = (plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128))
    out: Array = plgpu.kernel(
        partial(
            grouped_matmul_kernel, activation=activation, groups=groups, has_bias=bias is not None
        ),
        out_type=jax.ShapeDtypeStruct((M, columns), x.dtype),
        grid=(len(expert), columns // width),
        grid_names=("tile", "column"),
        num_threads=groups + 1,
        thread_name="warpgroup",
        scratch_types=[
            plgpu.SMEM((stages, halves, _STEP, width), weight.dtype, transforms=swizzled),
            plgpu.SMEM((stages, size, _STEP), x.dtype, transforms=swizzled),
            plgpu.SMEM((groups, size, _ROWS), x.dtype, transforms=swizzled),
            plgpu.Barrier(num_arrivals=1 + halves, num_barriers=stages),
            plgpu.Barrier(num_arrivals=groups, num_barriers=stages),
        ],
        compiler_params=plgpu.CompilerParams(approx_math=True),
        interpret=interpreter(interpret),
    )(x, weight, expert, *(() if bias is None else (bias,)))
    return out


def choose_groups(columns: int, tiles: int, size: int) -> int:
    """Warpgroups that compute: the more, the less often tokens are read, where blocks are many.

    Three have registers for tiles of 64 tokens.
    """
    enough = traced_device().num_cores
    fitting = [n for n in (2, 3) if columns % (n * _ROWS) == 0 and (n == 2 or size <= 64)]
    return next((n for n in fitting if tiles * columns // (n * _ROWS) >= enough), 1)


def choose_stages(stage: int, result: int, size: int) -> int:
    """How many steps are fetched ahead, of so many bytes: as memory allows, beside the result's."""
    shared = _SHARED_BYTES // (2 if size <= _FEW else 1)
    return max(2, min(_STAGES, (shared - result) // stage))


def limit_registers(groups: int, size: int, *, fetching: bool) -> None:
    """Sums of many tokens need more registers than a third of what there are."""
    if groups == 2 and size > 64:
        action: Any = "decrease" if fetching else "increase"
        plgpu.set_max_registers(_FETCHING if fetching else _COMPUTING, action=action)


def grouped_matmul_kernel(
    x: Any, weight: Any, expert_of: Any, *rest: Any,
    activation: str | None, groups: int, has_bias: bool,
) -> None:  # fmt: skip
    """One block: one tile of tokens, `groups` x 64 columns of its expert."""
    bias, (out, w_tiles, x_tiles, out_tile, ready, free) = rest[:has_bias], rest[has_bias:]
    me, tile, block = (lax.axis_index(name) for name in ("warpgroup", "tile", "column"))
    stages, halves, _, width = w_tiles.shape
    size, columns = out_tile.shape[1], weight.shape[2] // halves
    steps = x.shape[1] // _STEP
    rows, expert = pl.ds(tile * size, size), expert_of[tile]
    tokens = rows if x.shape[0] > size else pl.ds(0, size)

    def fetch(step: Any, _: Any) -> None:
        slot, part = lax.rem(step, jnp.int32(stages)), pl.ds(step * _STEP, _STEP)
        pl.when(step >= stages)(partial(plgpu.barrier_wait, free.at[slot]))
        plgpu.copy_gmem_to_smem(x.at[tokens, part], x_tiles.at[slot], ready.at[slot])
        for half in range(halves):
            chosen = pl.ds(half * columns + block * width, width)
            target = w_tiles.at[slot, half]
            plgpu.copy_gmem_to_smem(weight.at[expert, part, chosen], target, ready.at[slot])

    def multiply(*accs: Any) -> Any:
        def step_(step: Any, _: Any) -> None:
            slot = lax.rem(step, jnp.int32(stages))
            plgpu.barrier_wait(ready.at[slot])
            for half, acc in enumerate(accs):
                mine = w_tiles.at[slot, half, :, pl.ds(me * _ROWS, _ROWS)]
                plgpu.wgmma(acc, mine.transpose((1, 0)), x_tiles.at[slot].transpose((1, 0)))
            plgpu.wgmma_wait(0)
            plgpu.barrier_arrive(free.at[slot])

        lax.fori_loop(0, steps, step_, None)
        return [acc[...] for acc in accs]

    @pl.when((expert < weight.shape[0]) & (me == groups))
    def _fetch() -> None:
        limit_registers(groups, size, fetching=True)
        lax.fori_loop(0, steps, fetch, None)
        for step in range(max(steps - stages, 0), steps):
            plgpu.barrier_wait(free.at[step % stages])

    @pl.when((expert < weight.shape[0]) & (me < groups))
    def _compute() -> None:
        limit_registers(groups, size, fetching=False)
        acc = plgpu.WGMMAAccumulatorRef((_ROWS, size), jnp.float32)
        found = pl.run_scoped(multiply, *[acc] * halves)
        first = block * width + me * _ROWS
        if has_bias:
            for half in range(halves):
                mine = pl.ds(half * columns + first, _ROWS)
                found[half] += across(
                    load(bias[0].at[expert, mine]).astype(jnp.float32), found[half]
                )
        value = activate(activation, found)
        mine = out_tile.at[me]
        mine.transpose((1, 0))[...] = value.astype(out_tile.dtype)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(mine, out.at[rows, pl.ds(first, _ROWS)])
        plgpu.wait_smem_to_gmem(0)
