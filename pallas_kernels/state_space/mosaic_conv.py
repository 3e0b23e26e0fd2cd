"""The short convolution of a decode step for Hopper: one launch, states in place.

    state [W - 1, channels] ──> registers ──┬─ weighted sum ─> y
    x [channels] of a token ────────────────┴─ drop the oldest ─> state

A block owns one row and some channels, which need nothing of each other. There is no arithmetic to
speak of: XLA, which reads all states before it writes any, needs three kernels.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float

from pallas_kernels.mosaic import cast, interpreter, load
from pallas_kernels.state_space.mosaic_rows import Row, each_part, packed_rows
from pallas_kernels.state_space.rows import ScanRows

_THREADS = 128
_PARTS = (1024, 512, 256)  # channels of a block, two or more of a thread


def takes_conv(x: Any, rows: ScanRows) -> bool:
    """Whether it is a decode step whose channels are whole blocks."""
    return bool(x.shape[0] <= rows.first.shape[0] and x.shape[1] % _PARTS[-1] == 0)


def mosaic_conv(
    x: Float[Array, "T C"],
    weight: Float[Array, "W C"],
    state: Float[Array, "Z W1 C"],
    rows: ScanRows,
    *,
    interpret: bool = False,
) -> tuple[Float[Array, "T C"], Float[Array, "Z W1 C"]]:
    """`causal_conv` where `takes_conv`; right for rows of any length, one token after the other."""
    C = x.shape[1]
    part = next(size for size in _PARTS if C % size == 0)
    pool = jax.new_ref(state)
    y = plgpu.kernel(
        partial(conv_kernel, size=part, interpret=interpret),
        out_type=jax.ShapeDtypeStruct(x.shape, x.dtype),
        grid=(rows.first.shape[0], C // part),
        grid_names=("row", "part"),
        interpret=interpreter(interpret),
    )(pool, x, weight, packed_rows(rows))
    return y, jax.freeze(pool)


def conv_kernel(
    pool: Any, x: Any, weight: Any, rows: Any, y: Any, *, size: int, interpret: bool
) -> None:
    """One block: one row, `size` channels."""
    row, mine = Row(rows, lax.axis_index("row")), pl.ds(lax.axis_index("part") * size, size)
    layout = plgpu.Layout.WG_STRIDED((size,), vec_size=size // _THREADS)
    W = weight.shape[0]

    def wide(ref: Any) -> Any:
        return cast(load(ref), layout, interpret).astype(jnp.float32)

    def zero() -> Any:
        return cast(jnp.zeros((size,), jnp.float32), layout, interpret)

    def store(seen: list[Any], slot: Any) -> None:
        for back, value in enumerate(seen):
            pool[slot, back, mine] = value.astype(pool.dtype)

    def token(weights: list[Any], t: Any, seen: list[Any]) -> list[Any]:
        seen = [*seen, wide(x.at[t, mine])]
        total = sum((v * w for v, w in zip(seen, weights, strict=True)), start=zero())
        y[t, mine] = total.astype(y.dtype)
        return seen[1:]

    @pl.when(row.length > 0)
    def _() -> None:
        weights = [wide(weight.at[place, mine]) for place in range(W)]
        seen = [
            lax.cond(row.fresh > 0, zero, partial(wide, pool.at[row.source, back, mine]))
            for back in range(W - 1)
        ]

        def scan(first: Any, end: Any, seen: list[Any]) -> Any:
            return lax.fori_loop(first, end, partial(token, weights), seen)

        each_part(row, seen, scan, store)
