"""The scan for Hopper, in Pallas Mosaic GPU: 64 rows of one head's state a block, in registers.

    state [64, S] ──> registers ──┬─ token by token: decay, write along k, read along q ─┬──> state
    k, q, v of 16 tokens ─────────┘  shared memory, the next 16 on their way             └──> y

The rows of a state need nothing of each other, so a block owns 64 of them. A decode step reads and
writes each state once, in place, which is its roofline; a long row is a chain of dependent tokens,
for which `mosaic_chunks.py` has products where the sizes allow, and `mosaic_selective.py` is for
decays that every entry of a state has of its own.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float, Float32

from pallas_kernels.errors import KernelError
from pallas_kernels.mosaic import across, cast, interpreter, load, spread
from pallas_kernels.state_space.mosaic_rows import TILE, Row, Slices, Tokens, each_part, packed_rows
from pallas_kernels.state_space.rows import ScanRows

AHEAD = 16  # tokens that are fetched together, if a row may have so many
_STAGES = 2
_STATE_SIZES = (16, 32, 64, 128, 256)


def check_limits(state: Any, keys: Any, values: Any) -> None:
    """Raise KernelError, naming the limit, if the kernel does not take these arrays."""
    V, S = state.shape[2:]
    limits = [
        (V % TILE == 0, f"states whose rows are a multiple of {TILE}, not {V}"),
        (S in _STATE_SIZES, f"a state size in {_STATE_SIZES}, not {S}"),
        (keys.dtype == values.dtype, f"keys of the values' dtype, not {keys.dtype}"),
        (state.dtype == jnp.float32, f"states in float32, not {state.dtype}"),
    ]
    for holds, limit in limits:
        if not holds:
            raise KernelError(f"The scan on this GPU takes {limit}.")


def mosaic_scan(
    state: Float32[Array, "Z N V S"],
    values: Float[Array, "T N V"],
    keys: Float[Array, "T J S"],
    queries: Float[Array, "T J S"],
    rates: Float32[Array, "T N 1"],
    rows: ScanRows,
    *,
    beta: Float32[Array, "T N"] | None = None,
    most: int | None = None,
    interpret: bool = False,
) -> tuple[Float[Array, "T N V"], Float32[Array, "Z N V S"]]:
    """`ssm_scan` in the limits of `check_limits`; only rows of up to `most` tokens, if given."""
    check_limits(state, keys, values)
    T, (N, V, S), B = values.shape[0], state.shape[1:], rows.first.shape[0]
    most = T if most is None else most
    ahead = min(AHEAD, most, T) if T > B else 1
    pool = jax.new_ref(state)
    y = plgpu.kernel(
        partial(scan_kernel, groups=N // keys.shape[1], most=most, interpret=interpret),
        out_type=jax.ShapeDtypeStruct(values.shape, values.dtype),
        grid=(B, N, V // TILE),
        grid_names=("row", "head", "tile"),
        scratch_types=[
            plgpu.SMEM((_STAGES, ahead, TILE), values.dtype),
            plgpu.SMEM((_STAGES, ahead, S), keys.dtype),
            plgpu.SMEM((_STAGES, ahead, S), keys.dtype),
            plgpu.Barrier(num_arrivals=3, num_barriers=_STAGES),
        ],
        compiler_params=plgpu.CompilerParams(approx_math=True, reduction_scratch_bytes=4096),
        interpret=interpreter(interpret),
    )(
        pool, values, keys, queries, packed_rows(rows), rates,
        *(() if beta is None else (beta,)),
    )  # fmt: skip
    return y, jax.freeze(pool)


def scan_kernel(
    # in the GPU's memory
    pool: Any, values: Any, keys: Any, queries: Any, rows: Any, rates: Any, *rest: Any,
    groups: int, most: int, interpret: bool,
) -> None:  # fmt: skip
    """One block: one row, one head, 64 rows of its state."""
    *beta, y, v_tile, k_tile, q_tile, ready = rest
    row = Row(rows, lax.axis_index("row"))
    head, part = lax.axis_index("head"), pl.ds(lax.axis_index("tile") * TILE, TILE)
    group = lax.div(head, jnp.int32(groups))
    S, T = k_tile.shape[2], values.shape[0]
    layout = partial(cast, interpret=interpret)
    by_column, by_row = plgpu.Layout.WGMMA.reduce(0), plgpu.Layout.WGMMA.reduce(1)

    def wide(ref: Any, kind: Any) -> Any:
        return layout(load(ref).astype(jnp.float32), kind)

    def numbers(token: Any) -> tuple[Any, ...]:
        """Those of a token, from the GPU's memory a token ahead: they have no layout to be in."""
        t = jnp.minimum(token, T - 1)
        return (rates[t, head, 0], *(x[t, head] for x in beta))

    slices: Slices = [
        (lambda tokens: values.at[tokens, head, part], v_tile),
        (lambda tokens: keys.at[tokens, group], k_tile),
        (lambda tokens: queries.at[tokens, group], q_tile),
    ]

    def scan(first: Any, end: Any, h: Any) -> Any:
        tokens = Tokens(first, end, T, slices, ready)

        def token(index: Any, carry: Any) -> Any:
            (h, now), then = carry, numbers(first + index + 1)
            chunk, slot, place = tokens.place(index)
            pl.when(index == chunk * tokens.ahead)(partial(tokens.wait, chunk))
            k, q = (spread(wide(x.at[slot, place], by_column), h) for x in (k_tile, q_tile))
            v = wide(v_tile.at[slot, place], by_row)
            h = h * jnp.exp(now[0])
            if beta:
                v = now[1] * (v - jnp.sum(h * k, axis=1))
            h = h + across(v, h) * k
            y[first + index, head, part] = jnp.sum(h * q, axis=1).astype(y.dtype)
            last = index + 1 == (chunk + 1) * tokens.ahead
            pl.when(last)(partial(tokens.fetch_later, chunk))
            return h, then

        tokens.start()
        h, _ = lax.fori_loop(0, end - first, token, (h, numbers(first)))
        return h

    def store(h: Any, slot: Any) -> None:
        pool[slot, head, part] = h

    @pl.when((row.length > 0) & (row.length <= most))
    def _() -> None:
        h = lax.cond(
            row.fresh > 0,
            lambda: layout(jnp.zeros((TILE, S), jnp.float32), plgpu.Layout.WGMMA),
            lambda: wide(pool.at[row.source, head, part], plgpu.Layout.WGMMA),
        )
        each_part(row, h, scan, store)
