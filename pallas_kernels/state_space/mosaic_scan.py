"""The scan for Hopper, in Pallas Mosaic GPU: 64 rows of one head's state a block, in registers.

    state [64, S] ──> registers ──┬─ token by token: decay, write along k, read along q ─┬──> state
    k, q, v of 16 tokens ─────────┘  shared memory, the next 16 on their way             └──> y

The rows of a state need nothing of each other, so a block owns 64 of them. A decode step reads and
writes each state once, in place, which is its roofline; a long row is a chain of dependent tokens,
for which `mosaic_chunks.py` has products where the scan's kind allows.
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
from pallas_kernels.mosaic import cast, interpreter, load
from pallas_kernels.state_space.rows import ScanRows

TILE = 64  # rows of a state in a block
AHEAD = 16  # tokens that are fetched together
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
    rates: Float32[Array, "T N W"],
    rows: ScanRows,
    *,
    matrix: Float32[Array, "N V S"] | None = None,
    beta: Float32[Array, "T N"] | None = None,
    most: int | None = None,
    interpret: bool = False,
) -> tuple[Float[Array, "T N V"], Float32[Array, "Z N V S"]]:
    """`ssm_scan` in the limits of `check_limits`; only rows of up to `most` tokens, if given."""
    check_limits(state, keys, values)
    T, (N, V, S) = values.shape[0], state.shape[1:]
    ahead = min(AHEAD, T)
    pool = jax.new_ref(state)
    options = [x for x in (matrix, beta) if x is not None]
    y = plgpu.kernel(
        partial(
            scan_kernel, groups=N // keys.shape[1], has_matrix=matrix is not None,
            has_beta=beta is not None, most=T if most is None else most, interpret=interpret,
        ),
        out_type=jax.ShapeDtypeStruct(values.shape, values.dtype),
        grid=(rows.first.shape[0], N, V // TILE),
        grid_names=("row", "head", "tile"),
        scratch_types=[
            plgpu.SMEM((_STAGES, ahead, TILE), values.dtype),
            plgpu.SMEM((_STAGES, ahead, S), keys.dtype),
            plgpu.SMEM((_STAGES, ahead, S), keys.dtype),
            *[plgpu.SMEM((_STAGES, ahead, TILE), jnp.float32)] * (matrix is not None),
            plgpu.Barrier(num_arrivals=3 + (matrix is not None), num_barriers=_STAGES),
        ],
        compiler_params=plgpu.CompilerParams(approx_math=True, reduction_scratch_bytes=4096),
        interpret=interpreter(interpret),
    )(
        pool, values, keys, queries, rates,
        rows.first, rows.length, rows.slots, rows.fresh.astype(jnp.int32), *options,
    )  # fmt: skip
    return y, jax.freeze(pool)


def scan_kernel(
    # in the GPU's memory
    pool: Any, values: Any, keys: Any, queries: Any, rates: Any,
    start: Any, count: Any, slots: Any, fresh: Any, *rest: Any,
    groups: int, has_matrix: bool, has_beta: bool, most: int, interpret: bool,
) -> None:  # fmt: skip
    """One block: one row, one head, 64 rows of its state."""
    options, rest = rest[: has_matrix + has_beta], rest[has_matrix + has_beta :]
    y, v_tile, k_tile, q_tile, *rate_tile, ready = rest
    row, head, tile = (lax.axis_index(name) for name in ("row", "head", "tile"))
    (ahead, S), T = k_tile.shape[1:], values.shape[0]
    layout = partial(cast, interpret=interpret)
    by_column, by_row = plgpu.Layout.WGMMA.reduce(0), plgpu.Layout.WGMMA.reduce(1)
    first, length, part = start[row], count[row], pl.ds(tile * TILE, TILE)

    def begin(chunk: Any) -> Any:
        """The first token that is fetched for a chunk: no fetch goes past the last token."""
        return jnp.minimum(first + chunk * ahead, T - ahead)

    def fetch(chunk: Any) -> None:
        tokens, slot = pl.ds(begin(chunk), ahead), lax.rem(chunk, jnp.int32(_STAGES))
        group = lax.div(head, jnp.int32(groups))
        pairs = [
            (values.at[tokens, head, part], v_tile), (keys.at[tokens, group], k_tile),
            (queries.at[tokens, group], q_tile),
            *((rates.at[tokens, head, part], target) for target in rate_tile),
        ]  # fmt: skip
        for source, target in pairs:
            plgpu.copy_gmem_to_smem(source, target.at[slot], ready.at[slot])

    def wide(ref: Any, kind: Any) -> Any:
        return layout(load(ref).astype(jnp.float32), kind)

    def across(vector: Any, like: Any) -> Any:
        return lax.broadcast_in_dim(vector, like.shape, [0])

    def along(vector: Any, like: Any) -> Any:
        return lax.broadcast_in_dim(vector, like.shape, [1])

    def numbers(index: Any) -> tuple[Any, ...]:
        """Those of a token, from the GPU's memory a token ahead: they have no layout to be in."""
        t = jnp.minimum(first + index, T - 1)
        return (
            *(() if has_matrix else (rates[t, head, 0],)),
            *(x[t, head] for x in options[has_matrix:]),
        )

    def token(matrix: Any, index: Any, carry: Any) -> Any:
        (h, now), then = carry, numbers(index + 1)
        chunk = lax.div(index, jnp.int32(ahead))
        slot = lax.rem(chunk, jnp.int32(_STAGES))
        place = first + index - begin(chunk)
        pl.when(index == chunk * ahead)(partial(plgpu.barrier_wait, ready.at[slot]))
        k, q = (along(wide(x.at[slot, place], by_column), h) for x in (k_tile, q_tile))
        v = wide(v_tile.at[slot, place], by_row)
        if has_matrix:
            h = h * jnp.exp(across(wide(rate_tile[0].at[slot, place], by_row), h) * matrix)
        else:
            h = h * jnp.exp(now[0])
        if has_beta:
            v = now[-1] * (v - jnp.sum(h * k, axis=1))
        h = h + across(v, h) * k
        y[first + index, head, part] = jnp.sum(h * q, axis=1).astype(y.dtype)
        last = index + 1 == (chunk + 1) * ahead
        pl.when(last & ((chunk + _STAGES) * ahead < length))(partial(fetch, chunk + _STAGES))
        return h, then

    @pl.when((length > 0) & (length <= most))
    def _() -> None:
        for chunk in range(_STAGES):
            pl.when(chunk * ahead < length)(partial(fetch, jnp.int32(chunk)))
        matrix = wide(options[0].at[head, part], plgpu.Layout.WGMMA) if has_matrix else None
        here = pool.at[slots[row], head, part]
        h = lax.cond(
            fresh[row] > 0,
            lambda: layout(jnp.zeros((TILE, S), jnp.float32), plgpu.Layout.WGMMA),
            lambda: wide(here, plgpu.Layout.WGMMA),
        )
        here[...], _ = lax.fori_loop(0, length, partial(token, matrix), (h, numbers(0)))
