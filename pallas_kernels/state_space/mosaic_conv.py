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
from pallas_kernels.state_space.rows import ScanRows

_THREADS = 128
_PARTS = (1024, 512, 256)  # channels of a block, two or more of a thread


def takes_conv(x: Any, rows: ScanRows) -> bool:
    """Whether it is a decode step whose channels are whole blocks."""
    return x.shape[0] <= rows.first.shape[0] and x.shape[1] % _PARTS[-1] == 0


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
    )(pool, x, weight, rows.first, rows.length, rows.slots, rows.fresh.astype(jnp.int32))
    return y, jax.freeze(pool)


def conv_kernel(
    pool: Any, x: Any, weight: Any, start: Any, count: Any, slots: Any, fresh: Any, y: Any,
    *, size: int, interpret: bool,
) -> None:  # fmt: skip
    """One block: one row, `size` channels."""
    row, mine = lax.axis_index("row"), pl.ds(lax.axis_index("part") * size, size)
    layout = plgpu.Layout.WG_STRIDED((size,), vec_size=size // _THREADS)
    first, W = start[row], weight.shape[0]
    kept = [pool.at[slots[row], back, mine] for back in range(W - 1)]

    def wide(ref: Any) -> Any:
        return cast(load(ref), layout, interpret).astype(jnp.float32)

    def zero() -> Any:
        return cast(jnp.zeros((size,), jnp.float32), layout, interpret)

    def token(weights: list[Any], index: Any, seen: list[Any]) -> list[Any]:
        seen = [*seen, wide(x.at[first + index, mine])]
        total = sum((v * w for v, w in zip(seen, weights, strict=True)), start=zero())
        y[first + index, mine] = total.astype(y.dtype)
        return seen[1:]

    @pl.when(count[row] > 0)
    def _() -> None:
        weights = [wide(weight.at[place, mine]) for place in range(W)]
        seen = [lax.cond(fresh[row] > 0, zero, partial(wide, place)) for place in kept]
        seen = lax.fori_loop(0, count[row], partial(token, weights), seen)
        for place, value in zip(kept, seen, strict=True):
            place[...] = value.astype(place.dtype)
