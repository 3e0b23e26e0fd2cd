"""A part of a parameter, read from the tensors it is made of.

Owns which rows of which tensors those are, and how many are in memory at a time. Refuses to know
what a tensor's numbers mean, and devices.
"""

from collections.abc import Mapping

import numpy as np

from models.checkpoints.host_arrays import host_zeros
from models.quantised.tensors import Readable
from models.weights.sources import Source, Stack

BLOCK_BYTES = 16 * 1024 * 1024  # read at once
STRIP_ROWS = 16  # transposed at once: more fall out of the cache, 2.0 against 0.3 GB/s

Index = tuple[slice, ...]


def read_slice(
    source: Source | Stack,
    tensors: Mapping[str, Readable],
    index: Index,
    shape: tuple[int, ...],
    dtype: np.dtype,
    shards: int,
) -> np.ndarray:
    """The slice `index` of a parameter of `shape`, as a new array of `dtype`."""
    bounds = [part.indices(size)[:2] for part, size in zip(index, shape, strict=True)]
    out = host_zeros(tuple(stop - start for start, stop in bounds), dtype)
    if isinstance(source, Source):
        fill(out, source, tensors, bounds, shards)
    else:
        copies = shape[0] // len(source.sources)
        for number, entry in zip(range(*bounds[0]), out, strict=True):
            fill(entry, source.sources[number // copies], tensors, bounds[1:], shards)
    return out


def fill(
    out: np.ndarray,
    source: Source,
    tensors: Mapping[str, Readable],
    bounds: list[tuple[int, int]],
    shards: int,
) -> None:
    """Write the part of a parameter within `bounds`, a pair an axis, into `out`."""
    low, high = bounds[source.axis]
    for piece in source.pieces(shards):
        start, stop = max(piece.at, low), min(piece.at + piece.count, high)
        if start >= stop:
            continue
        wanted = [slice(*pair) for pair in bounds]
        first = piece.start + (start - piece.at) * piece.step
        wanted[source.axis] = slice(first, first + (stop - start) * piece.step, piece.step)
        target = out[(slice(None),) * source.axis + (slice(start - low, stop - low),)]
        if source.transpose:
            wanted, target = wanted[::-1], target.T
        if source.between:
            wanted, target = [wanted[0], slice(None), *wanted[1:]], target[:, None]
        tensor = tensors[piece.tensor]
        _copy(tensor if source.entry is None else tensor.entry(source.entry), wanted, target)
    if source.unit:
        _normalise(out)
    if source.exponents:
        np.negative(np.exp(out, out), out)


def _normalise(columns: np.ndarray) -> None:
    """Divide each column of [in, out] by its length, some at a time."""
    step = max(1, BLOCK_BYTES // (4 * len(columns)))
    for start in range(0, columns.shape[1], step):
        block = columns[:, start : start + step].astype(np.float32)
        columns[:, start : start + step] = block / np.maximum(np.linalg.norm(block, axis=0), 1e-12)


def _copy(tensor: Readable, wanted: list[slice], target: np.ndarray) -> None:
    """Write `tensor[wanted]` into `target`, which has other strides and perhaps another dtype."""
    outer, *columns = wanted
    every = outer.step or 1
    step = max(STRIP_ROWS, BLOCK_BYTES // max(1, tensor.row_bytes * every))  # rows of `target`
    for start in range(0, len(target), step):
        first = outer.start + start * every
        last = min(first + step * every, tensor.shape[0])
        block = tensor.read(first, last)[::every, *columns]
        for strip in range(0, min(step, len(target) - start), STRIP_ROWS):
            rows = target[start + strip :][: min(STRIP_ROWS, step - strip)]
            rows[...] = block[strip : strip + len(rows)]
