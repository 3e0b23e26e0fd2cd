"""Mamba-1's scan for Hopper: 64 channels of one row a block, their states in registers.

    x, dt, B, C of 8 tokens ─ TMA ─> shared memory, three times as many on their way
    state [64, S] ──> registers ── 8 tokens, unrolled ──┬──> state, in place
    A     [64, S] ──> registers                         └──> y^T [64, 8] ─ TMA ─> y

Every entry of a state has a decay of its own, exp(dt A), so a chunk is no product. What bounds a
long row are those exponentials, V S a token, of which a core does 16 a cycle: the four warps of a
block keep a core's units busy if they wait for nothing else. So the tokens of a chunk are unrolled,
one token's exponentials overlap another's sums, and nothing is stored until all are done: Mosaic
puts barriers around every store. Channels need nothing of each other, and a prompt of 8,192
channels is 128 blocks. A decode step reads and writes each state once.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Float32

from pallas_kernels.errors import KernelError
from pallas_kernels.mosaic import across, cast, column_numbers, interpreter, load_as, spread
from pallas_kernels.state_space.mosaic_rows import TILE, Row, Slices, Tokens, packed_rows
from pallas_kernels.state_space.rows import ScanRows

CHUNK = 8  # tokens that are fetched together, and unrolled: 16 take thrice as long to compile
_STAGES = 4
_STATE_SIZES = (8, 16, 32, 64)
_LOG2E = math.log2(math.e)


def check_selective(state: Any, keys: Any, values: Any) -> None:
    """Raise KernelError, naming the limit, if the kernel does not take these arrays."""
    V, S = state.shape[2:]
    limits = [
        (V % TILE == 0, f"channels in a multiple of {TILE}, not {V}"),
        (S in _STATE_SIZES, f"a state size in {_STATE_SIZES}, not {S}"),
        (keys.dtype == values.dtype, f"keys of the values' dtype, not {keys.dtype}"),
        (state.dtype == jnp.float32, f"states in float32, not {state.dtype}"),
    ]
    for holds, limit in limits:
        if not holds:
            raise KernelError(f"Mamba-1's scan on this GPU takes {limit}.")


def mosaic_selective(
    state: Float32[Array, "Z N V S"],
    values: Float[Array, "T N V"],
    keys: Float[Array, "T J S"],
    queries: Float[Array, "T J S"],
    rates: Float32[Array, "T N V"],
    matrix: Float32[Array, "N V S"],
    rows: ScanRows,
    *,
    interpret: bool = False,
) -> tuple[Float[Array, "T N V"], Float32[Array, "Z N V S"]]:
    """`ssm_scan` with `matrix`, in the limits of `check_selective`."""
    check_selective(state, keys, values)
    T, (N, V, S), B = values.shape[0], state.shape[1:], rows.first.shape[0]
    ahead = min(CHUNK, T) if T > B else 1
    whole = ahead == CHUNK and values.dtype.itemsize == 2  # wider ones are not stored transposed
    pool = jax.new_ref(state)
    y = plgpu.kernel(
        partial(selective_kernel, groups=N // keys.shape[1], interpret=interpret),
        out_type=jax.ShapeDtypeStruct(values.shape, values.dtype),
        grid=(B, N, V // TILE),
        grid_names=("row", "head", "tile"),
        scratch_types=[
            plgpu.SMEM((_STAGES, ahead, TILE), values.dtype),
            plgpu.SMEM((_STAGES, ahead, TILE), jnp.float32),
            *[plgpu.SMEM((_STAGES, ahead, S), keys.dtype)] * 2,
            *[plgpu.SMEM((ahead, TILE), values.dtype)] * whole,
            plgpu.Barrier(num_arrivals=4, num_barriers=_STAGES),
        ],
        compiler_params=plgpu.CompilerParams(approx_math=True),
        interpret=interpreter(interpret),
    )(pool, values, rates, keys, queries, matrix, packed_rows(rows))
    return y, jax.freeze(pool)


def selective_kernel(
    # in the GPU's memory
    pool: Any, values: Any, rates: Any, keys: Any, queries: Any, matrix: Any, rows: Any, y: Any,
    # of the block
    v_tile: Any, rate_tile: Any, k_tile: Any, q_tile: Any, *rest: Any,
    groups: int, interpret: bool,
) -> None:  # fmt: skip
    """One block: one row, one head, 64 channels."""
    *out, ready = rest
    row = Row(rows, lax.axis_index("row"))
    head, part = lax.axis_index("head"), pl.ds(lax.axis_index("tile") * TILE, TILE)
    group = lax.div(head, jnp.int32(groups))
    S = k_tile.shape[2]
    layout = partial(cast, interpret=interpret)
    by_column, by_row = plgpu.Layout.WGMMA.reduce(0), plgpu.Layout.WGMMA.reduce(1)

    def wide(ref: Any, kind: Any) -> Any:
        return load_as(ref, kind, interpret).astype(jnp.float32)

    def one_token(decays: Any, slot: Any, place: Any, h: Any) -> tuple[Any, Any]:
        """The state after a token in shared memory, and what it reads."""
        rate = across(wide(rate_tile.at[slot, place], by_row), h)
        v = across(wide(v_tile.at[slot, place], by_row), h)
        k, q = (spread(wide(x.at[slot, place], by_column), h) for x in (k_tile, q_tile))
        h = h * jnp.exp2(rate * decays) + v * k
        return h, jnp.sum(h * q, axis=1)

    slices: Slices = [
        (lambda tokens: values.at[tokens, head, part], v_tile),
        (lambda tokens: rates.at[tokens, head, part], rate_tile),
        (lambda tokens: keys.at[tokens, group], k_tile),
        (lambda tokens: queries.at[tokens, group], q_tile),
    ]

    def scan(decays: Any, first: Any, end: Any, h: Any) -> Any:
        tokens = Tokens(first, end, values.shape[0], slices, ready)
        ahead = tokens.ahead

        def whole_chunk(chunk: Any, h: Any) -> Any:
            tokens.wait(chunk)
            found = layout(jnp.zeros((TILE, ahead), jnp.float32), plgpu.Layout.WGMMA)
            column = column_numbers(found.shape, interpret)
            for place in range(ahead):
                h, read = one_token(decays, tokens.slot(chunk), place, h)
                found = jnp.where(column == place, across(read, found), found)
            tokens.fetch_later(chunk)
            plgpu.wait_smem_to_gmem(0, wait_read_only=True)
            out[0].transpose((1, 0))[...] = found.astype(y.dtype)
            plgpu.commit_smem()
            target = y.at[pl.ds(first + chunk * ahead, ahead), head, part]
            plgpu.copy_smem_to_gmem(out[0], target)
            return h

        def token(index: Any, h: Any) -> Any:
            chunk, slot, place = tokens.place(index)
            pl.when(index == chunk * ahead)(partial(tokens.wait, chunk))
            h, read = one_token(decays, slot, place, h)
            y[first + index, head, part] = read.astype(y.dtype)
            pl.when(index + 1 == (chunk + 1) * ahead)(partial(tokens.fetch_later, chunk))
            return h

        tokens.start()
        unrolled = jnp.int32(0)
        if out:
            unrolled = lax.div(end - first, jnp.int32(ahead))
            h = lax.fori_loop(0, unrolled, whole_chunk, h)
        return lax.fori_loop(unrolled * ahead, end - first, token, h)

    def store(h: Any, slot: Any) -> None:
        pool[slot, head, part] = h

    def part_of(decays: Any, number: Any, h: Any) -> Any:
        """Up to the border, then from there on."""
        end = jnp.where(number == 0, row.border, row.length)
        h = scan(decays, row.first + number * row.border, row.first + end, h)
        pl.when((number == 0) & (row.border > 0))(lambda: store(h, row.snapshot))
        return h

    @pl.when(row.length > 0)
    def _() -> None:
        decays = wide(matrix.at[head, part], plgpu.Layout.WGMMA) * _LOG2E
        h = lax.cond(
            row.fresh > 0,
            lambda: layout(jnp.zeros((TILE, S), jnp.float32), plgpu.Layout.WGMMA),
            lambda: wide(pool.at[row.source, head, part], plgpu.Layout.WGMMA),
        )
        if row.has_border:  # in a loop, for two scans are slow to compile
            h = lax.fori_loop(0, 2, partial(part_of, decays), h)
        else:
            h = scan(decays, row.first, row.first + row.length, h)
        store(h, row.slot)
        plgpu.wait_smem_to_gmem(0)
