"""Drawing a token for Hopper, in Pallas Mosaic GPU: a row of logits in the memory of one cluster.

    logits ─ TMA ─> a cluster's shared memory, an eighth of the row in each block
                      │ penalties, largest                                ─┐
                      │ top-k: how many lie above 4 pivots?                │ blocks tell each other
                      │ top-p: how much lies above 4 pivots?               │ their sums
                      └ noise where a token is left, largest with noise   ─┘

The logits are read once, whatever the options; a threshold is then searched for in shared memory,
by a fourth of what is left a turn, between values that occur. A block is one warpgroup with 64 KiB
of a vocabulary of 128k, so three are on a core. A greedy row is done after the first pass, and
noise, 20 rounds of integers a token, is made only in chunks where a token is left. The largest of
each chunk is kept, so that a search passes over chunks that lie below what it has found.
"""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float32, Int32

from pallas_kernels.mosaic import interpreter
from pallas_kernels.sampling.limits import BLOCKS, CHUNK, PIECES, WIDTH, lines_of_block
from pallas_kernels.sampling.noise import gumbel, row_key
from pallas_kernels.sampling.rows import COUNT_BITS, DrawRows, is_penalised, pack_rows

_PIVOTS = 4
_FIELDS = _PIVOTS + 2  # numbers that the blocks of a row tell each other in a turn
_MOST_TURNS = 200  # of a search; halving the floats between two takes at most 32
_LARGEST = float(jnp.finfo(jnp.float32).max)
_NO_TOKEN = 2.0**30


def mosaic_draw(
    logits: Float32[Array, "B V"],
    counts: Int32[Array, "Z V"],
    rows: DrawRows,
    *,
    blocks: int = BLOCKS,
    chunk: int = CHUNK,
    interpret: bool = False,
) -> Int32[Array, " B"]:
    """`draw` for vocabularies that `lines_of_block` takes."""
    B, V = logits.shape
    lines, packed = lines_of_block(V, blocks, chunk), pack_rows(rows)
    tokens, _ = plgpu.kernel(
        partial(draw_kernel, chunk=chunk, interpret=interpret),
        out_type=[
            jax.ShapeDtypeStruct((B,), jnp.int32),
            jax.ShapeDtypeStruct((B, 2, _FIELDS, blocks), jnp.float32),
        ],
        grid=(B,),
        grid_names=("row",),
        cluster=(blocks,),
        cluster_names=("block",),
        scratch_types=[
            plgpu.SMEM((lines, WIDTH), jnp.float32),
            plgpu.SMEM((lines // chunk,), jnp.float32),
            plgpu.Barrier(num_barriers=PIECES),
            plgpu.ClusterBarrier(collective_axes=("block",)),
        ],
        compiler_params=plgpu.CompilerParams(approx_math=False, reduction_scratch_bytes=1024),
        interpret=interpreter(interpret),
    )(
        logits.reshape(B, V // WIDTH, WIDTH),
        counts.reshape(-1, V // WIDTH, WIDTH),
        lax.bitcast_convert_type(packed, jnp.float32), packed,
    )  # fmt: skip
    return tokens


class _Row:
    """The options of one row, in registers; `floats` and `integers` are the same memory."""

    def __init__(self, floats: Any, integers: Any, row: Any) -> None:
        options = DrawRows(
            *(floats[i, row] for i in range(6)),
            *(integers[i, row] for i in range(6, 9)),
            *(integers[i, row].astype(jnp.uint32) for i in range(9, 11)),
        )
        self.draws, self.slot, self.top_k = options.temperature > 0, options.slot, options.top_k
        self.inverse = 1 / options.temperature  # where it draws
        self.top_p, self.log_min_p = options.top_p, jnp.log(options.min_p)
        self.presence, self.frequency = options.presence, options.frequency
        self.repetition = options.repetition
        self.penalised = is_penalised(self.presence, self.frequency, self.repetition)
        self.key = row_key(options.seed_high, options.seed_low, options.position)


class _Cluster:
    """What the blocks of a row tell each other: a turn is some numbers from each of them."""

    def __init__(self, parts: Any, barrier: Any, row: Any, block: Any, interpret: bool) -> None:
        self.parts, self.barrier, self.row, self.block = parts, barrier, row, block
        self.interpret, self.size = interpret, parts.shape[3]
        if not interpret:
            self.semaphores = pl.get_global(plgpu.SemaphoreType.REGULAR((parts.shape[0],)))

    def gather(self, turn: Any, values: Any) -> list[list[Any]]:
        """For each value, those of all blocks. Turns count from 0, in every block alike.

        Two turns have different places; nobody writes a third before all have read the first.
        """
        place = self.parts.at[self.row, lax.rem(jnp.int32(turn), jnp.int32(2))]
        for field, value in enumerate(values):
            place[field, self.block] = value
        self._meet(turn)
        return [[place[field, b] for b in range(self.size)] for field, _ in enumerate(values)]

    def _meet(self, turn: Any) -> None:
        """The interpreter knows no semaphores, and a cluster's barrier orders no writes to the
        GPU's memory."""
        if self.interpret:
            plgpu.barrier_arrive(self.barrier)
            plgpu.barrier_wait(self.barrier)
            return
        semaphore = self.semaphores.at[self.row]
        plgpu.semaphore_signal(semaphore, memory_scope="gpu")
        everybody = self.size * (jnp.int32(turn) + 1)
        plgpu.semaphore_wait(semaphore, everybody, decrement=False, memory_scope="gpu")

    def largest(self, turn: Any, value: Any, index: Any) -> tuple[Any, Any]:
        """The largest of the blocks' values and its index, the first of equals."""
        values, indices = self.gather(turn, (value, index))
        best = reduce(jnp.maximum, values)
        found = [jnp.where(v == best, i, _NO_TOKEN) for v, i in zip(values, indices, strict=True)]
        return best, reduce(jnp.minimum, found)


def draw_kernel(
    # in the GPU's memory
    logits: Any, counts: Any, floats: Any, integers: Any, tokens: Any, parts: Any,
    # of the block
    tile: Any, peaks: Any, ready: Any, barrier: Any,
    *, chunk: int, interpret: bool,
) -> None:  # fmt: skip
    """One block: an eighth of one row."""
    row, block = lax.axis_index("row"), lax.axis_index("block")
    lines = tile.shape[0]
    start = jnp.minimum(block * lines, logits.shape[1] - lines)
    first = block * lines * WIDTH  # tokens before it are another block's
    piece = lines // PIECES
    for i in range(PIECES):
        part = pl.ds(i * piece, piece)
        source = logits.at[row, pl.ds(start + i * piece, piece)]
        plgpu.copy_gmem_to_smem(source, tile.at[part], ready.at[i])
    options = _Row(floats, integers, row)
    cluster = _Cluster(parts, barrier, row, block, interpret)
    offsets = _offsets(chunk, interpret)

    def at(i: Any) -> Any:
        return tile.at[pl.ds(i * chunk, chunk)]

    def ids(i: Any) -> Any:
        return offsets + (start + i * chunk) * WIDTH

    def every(body: Any, carry: Any) -> Any:
        return lax.fori_loop(0, lines // chunk, body, carry)

    def enter(i: Any, best: Any) -> Any:
        @pl.when(lax.rem(i * chunk, jnp.int32(piece)) == 0)
        def _() -> None:
            plgpu.barrier_wait(ready.at[lax.div(i * chunk, jnp.int32(piece))])

        x = at(i)[...]
        theirs = counts.at[options.slot, pl.ds(start + i * chunk, chunk)]
        x = lax.cond(options.penalised, lambda: _penalised(x, theirs[...], options), lambda: x)
        x = jnp.where((x > -jnp.inf) & (ids(i) >= first), jnp.minimum(x, _LARGEST), -jnp.inf)
        at(i)[...] = x

        @pl.when(options.draws)
        def _() -> None:
            peaks[i] = jnp.max(x)

        return _better(best, x, ids(i))

    nothing = jnp.full((chunk, WIDTH), -jnp.inf), jnp.full((chunk, WIDTH), int(_NO_TOKEN))
    top, token = cluster.largest(0, *_largest(every(enter, nothing)))

    def draw() -> Any:
        threshold, turn = _threshold(at, peaks, cluster, options, top)

        def add_noise(i: Any, best: Any) -> Any:
            def noisy() -> Any:
                x = at(i)[...]
                scaled = (x - top) * options.inverse
                left = (x >= threshold) & (scaled >= options.log_min_p)
                noise = gumbel(options.key, ids(i))
                return _better(best, jnp.where(left, scaled + noise, -jnp.inf), ids(i))

            peak = peaks[i]
            likely = (peak - top) * options.inverse >= options.log_min_p
            return lax.cond((peak >= threshold) & likely & (peak > -jnp.inf), noisy, lambda: best)

        return cluster.largest(turn, *_largest(every(add_noise, nothing)))[1]

    token = lax.cond(options.draws & (top > -jnp.inf), draw, lambda: token)

    @pl.when(block == 0)
    def _() -> None:
        tokens[row] = jnp.where(token < _NO_TOKEN, token, 0.0).astype(jnp.int32)


def _offsets(chunk: int, interpret: bool) -> Any:
    """The number of each token of a chunk."""
    shape = (chunk, WIDTH)
    if interpret:
        line, column = (lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    else:
        layout = plgpu.Layout.WG_STRIDED(shape, vec_size=2)
        line, column = (
            plgpu.broadcasted_iota(jnp.int32, shape, axis, layout=layout) for axis in (0, 1)
        )
    return line * WIDTH + column


def _penalised(x: Any, packed: Any, options: _Row) -> Any:
    count = packed & ((1 << COUNT_BITS) - 1)
    changed = jnp.where(x > 0, x / options.repetition, x * options.repetition)
    changed = jnp.where(packed != 0, changed, x) - options.frequency * count.astype(jnp.float32)
    return changed - jnp.where(count > 0, options.presence, 0.0)


def _better(best: Any, values: Any, ids: Any) -> Any:
    """Element by element, the larger value and its id; of equals the one that came first."""
    value, index = best
    larger = values > value
    return jnp.where(larger, values, value), jnp.where(larger, ids, index)


def _largest(best: Any) -> tuple[Any, Any]:
    """The largest value of a block and its id, as a float."""
    values, ids = best
    value = jnp.max(values)
    index = jnp.min(jnp.where(values == value, ids.astype(jnp.float32), _NO_TOKEN))
    return value, index


def _threshold(at: Any, peaks: Any, cluster: _Cluster, options: _Row, top: Any) -> tuple[Any, Any]:
    """The least logit that top-k, then top-p leave; and the next turn."""

    def measure(turn: Any, by_mass: Any, pivots: Any, low: Any, high: Any) -> Any:
        """What lies at or above each pivot; the ends of what lies at or above low, below high."""

        def add(i: Any, carry: Any) -> Any:
            x = at(i)[...]
            scaled = (x - top) * options.inverse
            weight = lax.cond(
                by_mass,
                lambda: jnp.where(scaled >= options.log_min_p, jnp.exp(scaled), 0.0),
                lambda: jnp.where(x > -jnp.inf, 1.0, 0.0),
            )
            inside = (x >= low) & (x < high) & (x > -jnp.inf)
            sums = [
                s + jnp.where(x >= p, weight, 0.0) for s, p in zip(carry[2:], pivots, strict=True)
            ]
            return (
                jnp.minimum(carry[0], jnp.where(inside, x, jnp.inf)),
                jnp.maximum(carry[1], jnp.where(inside, x, -jnp.inf)),
                *sums,
            )

        def add_if_any(i: Any, carry: Any) -> Any:
            return lax.cond(peaks[i] >= low, lambda: add(i, carry), lambda: carry)

        zeros = (jnp.full(at(0).shape, v) for v in (jnp.inf, -jnp.inf, *[0.0] * _PIVOTS))
        carry = lax.fori_loop(0, peaks.shape[0], add_if_any, tuple(zeros))
        mine = (jnp.min(carry[0]), jnp.max(carry[1]), *(jnp.sum(s) for s in carry[2:]))
        lowest, highest, *sums = cluster.gather(turn, mine)
        return (
            reduce(jnp.minimum, lowest),
            reduce(jnp.maximum, highest),
            [reduce(jnp.add, s) for s in sums],
        )

    def search(stage: Any, carry: Any) -> Any:
        threshold, turn = carry
        by_mass = stage == 1

        def find() -> Any:
            low, _, sums = measure(
                turn, by_mass, [threshold] * _PIVOTS, threshold, jnp.float32(jnp.inf)
            )
            k = options.top_k.astype(jnp.float32)
            target = jnp.where(by_mass, options.top_p * sums[0], k)

            def unsettled(state: Any) -> Any:
                low, last, _, done, turn = state
                return (low < last) & (done == 0) & (turn < _MOST_TURNS)

            def halve(state: Any) -> Any:
                low, last, high, _, turn = state
                pivots = [jnp.maximum(low, low * (1 - f) + last * f) for f in (0.25, 0.5, 0.75)] + [
                    last
                ]
                least, most, sums = measure(turn, by_mass, pivots, low, high)
                low, last = jnp.maximum(low, least), jnp.minimum(last, most)
                done = jnp.int32(0)
                for pivot, found in zip(pivots, sums, strict=True):
                    enough = found >= target
                    low = jnp.where(enough, jnp.maximum(low, pivot), low)
                    high = jnp.where(enough, high, jnp.minimum(high, pivot))
                    done = jnp.where(found == target, jnp.int32(1), done)
                return low, jnp.minimum(last, high), high, done, turn + 1

            infinite = jnp.float32(jnp.inf)
            state = (low, top, infinite, jnp.int32(0), turn + 1)
            found, _, _, _, after = lax.while_loop(unsettled, halve, state)
            return jnp.where(sums[0] > target, found, threshold), after

        wanted = jnp.where(by_mass, options.top_p < 1.0, options.top_k > 0)
        return lax.cond(wanted, find, lambda: (threshold, turn))

    return lax.fori_loop(0, 2, search, (jnp.float32(-jnp.inf), jnp.int32(1)))
