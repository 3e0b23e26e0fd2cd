"""Writes quantised checkpoints number by number, as their formats are published.

Owns the packing, in loops that follow the formats' own words, and what the packed weights stand
for. Shares nothing with the code that reads them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

E4M3 = ml_dtypes.float8_e4m3fn
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


class Packed(NamedTuple):
    """One matrix: the tensors of a file, by the end of their names, and what they stand for."""

    tensors: dict[str, np.ndarray]
    stands_for: np.ndarray  # float64 [C, A]


def _words(numbers: np.ndarray, axis: int, bits: int, order: tuple[int, ...]) -> np.ndarray:
    """Every 32 / bits numbers along an axis in a word: number order[i] at bit i * bits."""
    moved = np.moveaxis(numbers, axis, -1).astype(np.uint64)
    groups = moved.reshape(*moved.shape[:-1], -1, 32 // bits)
    words = np.zeros(groups.shape[:-1], np.uint64)
    for place, number in enumerate(order):
        words |= groups[..., number] << np.uint64(place * bits)
    return np.moveaxis(words.astype(np.uint32).view(np.int32), -1, axis)


def _grouped(w: np.ndarray, group: int, bits: int, zeros: bool) -> tuple[np.ndarray, ...]:
    """numbers [C, A], scale [C, g] that float16 holds, zeros [C, g]: numbers from 0 on."""
    parts = w.reshape(len(w), -1, group).astype(np.float64)
    top = 2**bits - 1
    if zeros:
        low, high = parts.min(-1), parts.max(-1)
        scale = ((high - low) / top).astype(np.float16)
        zero = np.clip(np.rint(-low / scale), 1, top)
    else:
        scale = (np.abs(parts).max(-1) / (top // 2)).astype(np.float16)
        zero = np.full(scale.shape, 2 ** (bits - 1))
    wide = scale.astype(np.float64)[..., None]
    numbers = np.clip(np.rint(parts / wide) + zero[..., None], 0, top)
    meant = (numbers - zero[..., None]) * wide
    return numbers.reshape(w.shape), scale, zero, meant.reshape(w.shape)


def gptq(w: np.ndarray, group: int, bits: int = 4, zeros: bool = False, less: int = 1) -> Packed:
    """qweight packs inputs, qzeros outputs; zeros are stored less one in the first format."""
    numbers, scale, zero, meant = _grouped(w, group, bits, zeros)
    plain = tuple(range(32 // bits))
    tensors = {
        "qweight": _words(numbers.T, 0, bits, plain),
        "qzeros": _words(zero.T - less, 1, bits, plain),
        "scales": np.ascontiguousarray(scale.T),
        "g_idx": (np.arange(w.shape[1]) // group).astype(np.int32),
    }
    return Packed(tensors, meant)


def awq(w: np.ndarray, group: int) -> Packed:
    """Both pack outputs, eight of them in an order of their own."""
    numbers, scale, zero, meant = _grouped(w, group, 4, True)
    tensors = {
        "qweight": _words(numbers.T, 1, 4, AWQ_ORDER),
        "qzeros": _words(zero.T, 1, 4, AWQ_ORDER),
        "scales": np.ascontiguousarray(scale.T),
    }
    return Packed(tensors, meant)


def compressed(w: np.ndarray, group: int, bits: int = 4, zeros: bool = False) -> Packed:
    """weight_packed packs inputs, weight_zero_point outputs, both of [outputs, ...]."""
    numbers, scale, zero, meant = _grouped(w, group, bits, zeros)
    plain = tuple(range(32 // bits))
    tensors = {
        "weight_packed": _words(numbers, 1, bits, plain),
        "weight_scale": scale,
        "weight_shape": np.array(w.shape, np.int64),
    }
    if zeros:
        tensors["weight_zero_point"] = _words(zero, 0, bits, plain)
    return Packed(tensors, meant)


def int8(w: np.ndarray) -> Packed:
    """A scale for each output."""
    scale = (np.abs(w).max(1, keepdims=True) / 127).astype(np.float32)
    numbers = np.rint(w / scale).astype(np.int8)
    return Packed({"weight": numbers, "weight_scale": scale}, numbers.astype(np.float64) * scale)


def fp8(w: np.ndarray, grid: tuple[int, ...], name: str = "weight_scale") -> Packed:
    """e4m3 with a scale for each cell of a grid, which cells of 128 make, or one or all rows."""
    high, wide = (-(-s // g) if g in (1, s) else 128 for s, g in zip(w.shape, grid, strict=False))
    scale = np.zeros(grid, np.float32)
    numbers, meant = np.zeros(w.shape, E4M3), np.zeros(w.shape)
    for row, column in np.ndindex(grid):
        cell = np.s_[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
        scale[row, column] = np.abs(w[cell]).max() / 448
        numbers[cell] = (w[cell] / scale[row, column]).astype(E4M3)
        meant[cell] = numbers[cell].astype(np.float64) * scale[row, column]
    return Packed({"weight": numbers, name: scale}, meant)


def checkpoint(
    tensors: dict[str, np.ndarray], pack: Callable[[np.ndarray], Packed], chosen: Callable[..., Any]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A file's tensors with the chosen ones packed, and all as they are meant."""
    written, meant = {}, {}
    for name, values in tensors.items():
        if chosen(name):
            packed = pack(values)
            base = name.removesuffix(".weight")
            written |= {f"{base}.{end}": part for end, part in packed.tensors.items()}
            meant[name] = packed.stands_for
        else:
            written[name] = meant[name] = values
    return written, meant
