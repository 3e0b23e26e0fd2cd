"""Drawing a token for Hopper, in Pallas Mosaic GPU: a row of logits in the memory of one cluster.

    logits ─ TMA ─> a cluster's shared memory, an eighth of the row in each block
                      │ penalties, largest                                  blocks tell each other
                      │ top-k, top-p: how much lies above four pivots?      their numbers, turn by
                      └ noise where a token is left, largest with noise     turn

The logits are read once, whatever the options; thresholds are searched for in shared memory. A
block is one warpgroup and 64 KiB of a vocabulary of 128k, so that three are on a core. A greedy row
is done after the first pass. Noise, 20 rounds of integers a token, is made only in chunks where a
token is left, and a search passes over chunks that lie below what it has found.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float32, Int32

from pallas_kernels.mosaic import interpreter
from pallas_kernels.sampling.limits import BLOCKS, CHUNK, PIECES, WIDTH, lines_of_block
from pallas_kernels.sampling.mosaic_cluster import NO_TOKEN, Cluster
from pallas_kernels.sampling.mosaic_threshold import NUMBERS, Row, find_threshold
from pallas_kernels.sampling.noise import bits, gumbel_without_log1p, row_key
from pallas_kernels.sampling.rows import COUNT_BITS, DrawRows, is_penalised, pack_rows

_LARGEST = float(np.finfo(np.float32).max)


def mosaic_draw(
    logits: Float32[Array, "B V"],
    counts: Int32[Array, "Z V"],
    rows: DrawRows,
    *,
    blocks: int = BLOCKS,
    chunk: int = CHUNK,
    interpret: bool = False,
) -> Int32[Array, " B"]:
    """`draw` for vocabularies that `lines_of_block` takes; NaN is never chosen."""
    B, V = logits.shape
    lines, packed = lines_of_block(V, blocks, chunk), pack_rows(rows)
    chunks = lines // chunk
    tokens, _ = plgpu.kernel(
        partial(draw_kernel, interpret=interpret),
        out_type=[
            jax.ShapeDtypeStruct((B,), jnp.int32),
            jax.ShapeDtypeStruct((B, 2, NUMBERS, blocks), jnp.float32),
        ],
        grid=(B,),
        grid_names=("row",),
        cluster=(blocks,),
        cluster_names=("block",),
        scratch_types=[
            plgpu.SMEM((chunks, chunk, WIDTH), jnp.float32),
            plgpu.SMEM((chunks,), jnp.float32),
            plgpu.Barrier(num_arrivals=chunks // PIECES, num_barriers=PIECES),
            plgpu.ClusterBarrier(collective_axes=("block",)),
        ],
        compiler_params=plgpu.CompilerParams(approx_math=False, reduction_scratch_bytes=1024),
        interpret=interpreter(interpret),
    )(
        logits.reshape(B, V // WIDTH, WIDTH),
        counts.reshape(-1, V // WIDTH, WIDTH),
        lax.bitcast_convert_type(packed, jnp.float32),
        packed,
    )  # fmt: skip
    drawn: Array = tokens
    return drawn


def draw_kernel(
    # in the GPU's memory
    logits: Any, counts: Any, floats: Any, integers: Any, tokens: Any, parts: Any,
    # of the block
    tile: Any, peaks: Any, ready: Any, barrier: Any,
    *, interpret: bool,
) -> None:  # fmt: skip
    """One block: an eighth of one row."""
    row, block = lax.axis_index("row"), lax.axis_index("block")
    chunks, lines, _ = tile.shape
    start = jnp.minimum(block * chunks * lines, logits.shape[1] - chunks * lines)
    first = block * chunks * lines * WIDTH  # tokens before it are another block's
    options = _options(floats, integers, row)
    penalised = is_penalised(options.presence, options.frequency, options.repetition)
    draws = options.temperature > 0
    cluster = Cluster(parts, barrier, row, block, interpret)
    offsets = _offsets((lines, WIDTH), interpret)

    def lines_of(i: Any) -> Any:
        return pl.ds(start + i * lines, lines)

    def arrival(i: Any) -> Any:
        return ready.at[lax.div(i, jnp.int32(chunks // PIECES))]

    def fetch(i: Any, _: Any) -> None:
        plgpu.copy_gmem_to_smem(logits.at[row, lines_of(i)], tile.at[i], arrival(i))

    def ids(i: Any) -> Any:
        return offsets + (start + i * lines) * WIDTH

    def enter(i: Any, best: Any) -> Any:
        @pl.when(lax.rem(i, jnp.int32(chunks // PIECES)) == 0)
        def wait() -> None:
            plgpu.barrier_wait(arrival(i))

        x = tile.at[i][...]
        seen = counts.at[options.slot, lines_of(i)]
        x = lax.cond(penalised, lambda: _penalise(x, seen[...], options), lambda: x)
        x = jnp.where((x > -jnp.inf) & (ids(i) >= first), jnp.minimum(x, _LARGEST), -jnp.inf)
        tile.at[i][...] = x

        @pl.when(draws)
        def keep_peak() -> None:
            peaks[i] = jnp.max(x)

        return _better(best, x, ids(i))

    lax.fori_loop(0, chunks, fetch, None)
    nothing = tuple(jnp.full((lines, WIDTH), x) for x in (-jnp.inf, int(NO_TOKEN)))
    top, token = cluster.largest(0, *lax.fori_loop(0, chunks, enter, nothing))

    def draw() -> Any:
        log_min_p = jnp.log(options.min_p)
        part = Row(
            tile, peaks, top, 1 / options.temperature, log_min_p, options.top_p, options.top_k
        )
        threshold, turn = find_threshold(part, cluster, jnp.int32(1))
        key = row_key(options.seed_high, options.seed_low, options.position)

        def add_noise(i: Any, best: Any) -> Any:
            def noisy() -> Any:
                x = tile.at[i][...]
                scaled = part.scaled(x)
                left = (x >= threshold) & (scaled >= log_min_p)
                noise = gumbel_without_log1p(bits(key, ids(i)))
                return _better(best, jnp.where(left, scaled + noise, -jnp.inf), ids(i))

            peak = peaks[i]
            any_left = (peak >= threshold) & (part.scaled(peak) >= log_min_p) & (peak > -jnp.inf)
            return lax.cond(any_left, noisy, lambda: best)

        return cluster.largest(turn, *lax.fori_loop(0, chunks, add_noise, nothing))[1]

    token = lax.cond(draws & (top > -jnp.inf), draw, lambda: token)

    @pl.when(block == 0)
    def write() -> None:
        tokens[row] = jnp.where(token < NO_TOKEN, token, 0.0).astype(jnp.int32)


def _options(floats: Any, integers: Any, row: Any) -> DrawRows:
    """The options of one row, in registers; `floats` and `integers` are the same memory."""
    return DrawRows(
        *(floats[i, row] for i in range(6)),
        *(integers[i, row] for i in range(6, 9)),
        *(integers[i, row].astype(jnp.uint32) for i in range(9, 11)),
    )


def _offsets(shape: tuple[int, int], interpret: bool) -> Any:
    """The number of each token of a chunk."""
    if interpret:
        line, column = (lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    else:
        layout = plgpu.Layout.WG_STRIDED(shape, vec_size=2)
        line, column = (
            plgpu.broadcasted_iota(jnp.int32, shape, axis, layout=layout) for axis in (0, 1)
        )
    return line * WIDTH + column


def _penalise(x: Any, packed: Any, options: DrawRows) -> Any:
    """`reference.penalise`, of one chunk."""
    count = packed & ((1 << COUNT_BITS) - 1)
    changed = jnp.where(x > 0, x / options.repetition, x * options.repetition)
    changed = jnp.where(packed != 0, changed, x) - options.frequency * count.astype(jnp.float32)
    return changed - jnp.where(count > 0, options.presence, 0.0)


def _better(best: Any, values: Any, ids: Any) -> Any:
    """Element by element, the larger value and its id; of equals the one that came first."""
    value, index = best
    larger = values > value
    return jnp.where(larger, values, value), jnp.where(larger, ids, index)
