"""Seconds of a kernel, as a step would see them: many in one program, each after the other.

    arguments 0 ─ kernel ─ out 0 ─┐
    arguments 1 ──────────────────┴─ kernel ─ out 1 ─ ...        one CUDA graph

The kernels of a chain wait for each other, and take turns with sets of arguments that together
are larger than the cache, so each reads its own from memory.
"""

import math
from collections.abc import Callable
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import jax
from jax import lax
from jaxtyping import Array

from pallas_kernels.case import Case, Tiling

_CACHE_BYTES = 200 * 2**20  # several times an L2 of 50 MB
_CHAIN = 16  # kernels in a program
_MOST_SETS = 8
_WARM_UP, _SAMPLES = 2, 9
_SAMPLE_SECONDS = 0.02


def seconds_per_call(case: Case, tiling: Tiling | None = None, *, quick: bool = False) -> float:
    """Median time of one call; `quick` runs each thing once, for a trial without a GPU."""
    sets = 1 if quick else _sets(case.bytes_moved)
    length = 1 if quick else _CHAIN
    arguments = [case.make(jax.random.key(seed)) for seed in range(sets)]
    # what is updated in place is copied once a chain, where the caller keeps it
    chain = partial(_chain, case, tiling, length=length, interpret=quick)
    if not quick:  # within a program the interpreter's threads wait for threads of that program
        chain = jax.jit(chain)
    return seconds(lambda: chain(arguments), quick=quick) / length


def seconds(call: Callable[[], Any], *, quick: bool = False) -> float:
    """Median time of a call whose results are on the device, many in flight."""
    if quick:
        return _timed(call, 1)
    for _ in range(_WARM_UP):
        jax.block_until_ready(call())
    once = _timed(call, 1)
    repeats = max(1, math.ceil(_SAMPLE_SECONDS / once))
    return median(_timed(call, repeats) / repeats for _ in range(_SAMPLES))


def _timed(call: Callable[[], Any], repeats: int) -> float:
    start = perf_counter()
    for _ in range(repeats):
        result = call()
    jax.block_until_ready(result)
    return perf_counter() - start


def _sets(bytes_moved: int) -> int:
    return min(_MOST_SETS, math.ceil(_CACHE_BYTES / max(bytes_moved, 1)))


def _chain(
    case: Case,
    tiling: Tiling | None,
    sets: list[tuple[Array, ...]],
    *,
    length: int,
    interpret: bool,
) -> Any:
    out, sets = None, [list(arrays) for arrays in sets]
    for index in range(length):
        arrays = sets[index % len(sets)]
        if out is not None:
            arrays[0], out = lax.optimization_barrier((arrays[0], out))
        out = case.run(*arrays, tiling=tiling, interpret=interpret)
        for argument, output in case.updated.items():
            arrays[argument] = out[output]
    return out, sets
