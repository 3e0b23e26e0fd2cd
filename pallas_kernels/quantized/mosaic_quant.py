"""Weights of 4 bits times few tokens, for Hopper, in Pallas Mosaic GPU.

    q [128, group] ─ TMA ─> registers, 16 bits ─┐
    x [tokens, group] ─ TMA ────────────────────┴─ wgmma ─> [128, tokens] ─ x scale ─> sum

Operands are swapped: columns of the matrix are the rows of the tensor core's product, 64 for each
of two warpgroups, and tokens its columns, 8 at the least. A group is one product, so that its scale
multiplies 64 x tokens sums and not 64 x group weights: per weight there is only the conversion. A
third warpgroup fetches. The groups are divided among `splits` blocks where columns are few.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float

from pallas_kernels.errors import KernelError
from pallas_kernels.mosaic import cast, interpreter, load, register_product
from pallas_kernels.quantized.weights import Int4Weight

_ROWS, _GROUPS = 64, 2  # of a product; warpgroups that compute
WIDTH = _ROWS * _GROUPS  # columns of a block
_GROUP_SIZES = (64, 128)
_FEW = 32  # tokens with which two blocks find room on a core
_COMPUTING, _FETCHING = 232, 40  # registers of a thread, with more
_SHARED_BYTES = 190 * 1024
_TOKENS = (8, 16, 32, 64, 128)
SPLITS = (1, 2, 4, 8, 16)


def choose_splits(columns: int, tokens: int, num_cores: int) -> int:
    """Into how many blocks the groups are divided, by rule: enough to give every core one."""
    blocks = columns // WIDTH * -(-tokens // _TOKENS[-1])
    return next((n for n in SPLITS if blocks * n >= num_cores), SPLITS[-1])


def mosaic_quant_matmul(
    x: Float[Array, "M A"], weight: Int4Weight, *, splits: int, interpret: bool = False
) -> Float[Array, "M C"]:
    """`quant_matmul` of few tokens.

    Raises:
        KernelError: the group size is neither 64 nor 128, columns are no multiple of 128, or the
            tokens are not in 16 bits.
    """
    M, C, group = x.shape[0], weight.q.shape[0], weight.group_size
    for holds, limit in (
        (group in _GROUP_SIZES, f"groups of {_GROUP_SIZES}, not {group}"),
        (C % WIDTH == 0, f"columns in a multiple of {WIDTH}, not {C}"),
        (x.dtype in (jnp.bfloat16, jnp.float16), f"tokens in 16 bits, not {x.dtype}"),
    ):
        if not holds:
            raise KernelError(f"The product with 4-bit weights on this GPU takes {limit}.")
    size = next((n for n in _TOKENS if n >= M), _TOKENS[-1])
    x = jnp.pad(x, ((0, -M % size), (0, 0)))
    extra = [] if weight.low is None else [weight.low, _group_sums(x, group)]
    whole = jax.ShapeDtypeStruct((x.shape[0], C), x.dtype)
    parts = jax.ShapeDtypeStruct((splits, C, x.shape[0]), jnp.float32)
    out: Array = plgpu.kernel(
        partial(
            quant_matmul_kernel, has_low=weight.low is not None, splits=splits, interpret=interpret
        ),
        out_type=whole if splits == 1 else parts,
        grid=(C // WIDTH, x.shape[0] // size, splits),
        grid_names=("column", "token", "split"),
        num_threads=_GROUPS + 1,
        thread_name="warpgroup",
        scratch_types=_scratch(size, group, x.dtype, splits),
        compiler_params=plgpu.CompilerParams(approx_math=True),
        interpret=interpreter(interpret),
    )(x, weight.q, weight.scale, *extra)
    if splits > 1:
        out = out.sum(0).T.astype(x.dtype)
    return out[:M]


def _group_sums(x: Float[Array, "M A"], group: int) -> Float[Array, "g M"]:
    """What a group's lowest value is multiplied with."""
    return x.astype(jnp.float32).reshape(x.shape[0], -1, group).sum(-1).T


def _scratch(size: int, group: int, dtype: Any, splits: int) -> list[Any]:
    """Shared memory of one block: weights and tokens in flight, the result, barriers."""
    bits = group * 4 // 8  # bytes of a row of weights: what is swizzled together
    packed = (plgpu.TilingTransform((8, group)), plgpu.SwizzleTransform(bits))
    swizzled = (plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128))
    stages = max(2, min(8, _SHARED_BYTES // (WIDTH * group // 2 + 2 * size * group)))
    return [
        plgpu.SMEM((stages, WIDTH, group), jnp.int4, transforms=packed),
        plgpu.SMEM((stages, size, group), dtype, transforms=swizzled),
        # a part goes as it lies
        plgpu.SMEM((_GROUPS, size, _ROWS), dtype)
        if splits == 1
        else plgpu.SMEM((_GROUPS, _ROWS, size), jnp.float32),
        plgpu.Barrier(num_arrivals=2, num_barriers=stages),
        plgpu.Barrier(num_arrivals=_GROUPS, num_barriers=stages),
    ]


def quant_matmul_kernel(
    x: Any, q: Any, scale: Any, *rest: Any, has_low: bool, splits: int, interpret: bool
) -> None:
    """One block: 128 columns, one tile of tokens, one part of the groups."""
    extra, (result, q_tiles, x_tiles, out, ready, free) = rest[:-6], rest[-6:]
    me, column, token, split = (
        lax.axis_index(name) for name in ("warpgroup", "column", "token", "split")
    )
    stages, size, group = x_tiles.shape
    each = -(-scale.shape[0] // splits)
    begin = split * each
    steps = jnp.minimum(scale.shape[0] - begin, each)
    tokens = pl.ds(token * size, size)

    def fetch(step: Any, _: Any) -> None:
        slot = lax.rem(step, jnp.int32(stages))
        part = pl.ds((begin + step) * group, group)
        pl.when(step >= stages)(partial(plgpu.barrier_wait, free.at[slot]))
        columns = pl.ds(column * WIDTH, WIDTH)
        plgpu.copy_gmem_to_smem(q.at[columns, part], q_tiles.at[slot], ready.at[slot])
        plgpu.copy_gmem_to_smem(x.at[tokens, part], x_tiles.at[slot], ready.at[slot])

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
        layout = partial(cast, interpret=interpret)
        mine = pl.ds(column * WIDTH + me * _ROWS, _ROWS)
        by_row, by_column = plgpu.Layout.WGMMA.reduce(1), plgpu.Layout.WGMMA.reduce(0)

        def add(step: Any, acc: Any) -> Any:
            slot, g = lax.rem(step, jnp.int32(stages)), begin + step
            plgpu.barrier_wait(ready.at[slot])
            numbers = q_tiles[slot, pl.ds(me * _ROWS, _ROWS)].astype(x.dtype)
            tile = x_tiles.at[slot].transpose((1, 0))
            found = register_product(numbers, tile, (_ROWS, size), interpret)
            plgpu.barrier_arrive(free.at[slot])
            acc = acc + found * _across(layout(load(scale.at[g, mine]), by_row), acc)
            if has_low:
                low, sums = load(extra[0].at[g, mine]), load(extra[1].at[g, tokens])
                low, sums = _across(layout(low, by_row), acc), layout(sums, by_column)
                acc = acc + low * lax.broadcast_in_dim(sums, acc.shape, [1])
            return acc

        start = layout(jnp.zeros((_ROWS, size), jnp.float32), plgpu.Layout.WGMMA)
        acc = lax.fori_loop(0, steps, add, start)
        if splits == 1:
            out.at[me].transpose((1, 0))[...] = acc.astype(out.dtype)
        else:
            out[me] = acc
        plgpu.commit_smem()
        target = result.at[tokens, mine] if splits == 1 else result.at[split, mine, tokens]
        plgpu.copy_smem_to_gmem(out.at[me], target)
        plgpu.wait_smem_to_gmem(0)


def _across(vector: Any, like: Any) -> Any:
    """A number a row as an array of the shape of `like`."""
    return lax.broadcast_in_dim(vector, like.shape, [0])
