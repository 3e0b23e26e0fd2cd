"""Checkpoints in eight and four bits, read as if they were not: dequantised when they are read.

    fp8     weight  e4m3 [out, in]            weight_scale_inv  [out / 128, in / 128] or one number
    mxfp4   x_blocks  uint8 [E, out, in / 32, 16]: two numbers a byte, the lower half first
            x_scales  uint8 [E, out, in / 32]: powers of two, 127 is one      ->  x [E, in, out]

Owns the arithmetic of these formats, and tensors that look like a file's and hold their results.
Knows no architecture. Sources: DeepSeek-V3, arXiv 2412.19437; OCP Microscaling Formats 1.0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from models.errors import CheckpointError, UnsupportedError
from models.safetensors import Tensor

METHODS = ("fp8", "mxfp4")
_E2M1 = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], np.float32)
_NUMBERS = np.concatenate([_E2M1, -_E2M1])
_RECTANGLE = 128  # numbers with a scale in common, each way, of fp8
_BLOCK = 32  # numbers with a scale in common, of mxfp4
_BYTES = _BLOCK // 2


@runtime_checkable
class Readable(Protocol):
    """A tensor whose numbers can be asked for."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> np.dtype: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def row_bytes(self) -> int: ...
    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray: ...
    def entry(self, index: int) -> "Readable": ...


def quantisation_method(config: Mapping[str, Any]) -> str | None:
    """How config.json says that the weights are quantised; None if they are not.

    Raises:
        UnsupportedError: in a way that is not read.
    """
    quantisation = config.get("quantization_config") or config.get("compression_config")
    if quantisation is None:
        return None
    method = quantisation.get("quant_method") if isinstance(quantisation, dict) else quantisation
    if method not in METHODS:
        raise UnsupportedError(
            f"The checkpoint is quantised ({method!r}); only {' and '.join(METHODS)} are read, so "
            f"use the checkpoint it was made from."
        )
    return str(method)


def dequantised(tensors: Mapping[str, Tensor], method: str | None) -> Mapping[str, Readable]:
    """The same checkpoint with the tensors that it would have if it were not quantised.

    Raises:
        CheckpointError: a scale is missing or has another shape than its weights call for.
    """
    if method == "fp8":
        return _from_fp8(tensors)
    if method == "mxfp4":
        return _from_mxfp4(tensors)
    return tensors


def _from_fp8(tensors: Mapping[str, Tensor]) -> dict[str, Readable]:
    found: dict[str, Readable] = {}
    for name, tensor in tensors.items():
        if name.endswith("_scale_inv"):
            continue
        if tensor.dtype.name.startswith("float8"):
            found[name] = Fp8Tensor(tensor, _partner(tensors, name, f"{name}_scale_inv"))
        else:
            found[name] = tensor
    return found


def _from_mxfp4(tensors: Mapping[str, Tensor]) -> dict[str, Readable]:
    found: dict[str, Readable] = {}
    for name, tensor in tensors.items():
        if name.endswith("_blocks"):
            base = name.removesuffix("_blocks")
            found[base] = MxFp4Tensor(base, tensor, _partner(tensors, name, f"{base}_scales"))
        elif not (name.endswith("_scales") and f"{name.removesuffix('_scales')}_blocks" in tensors):
            found[name] = tensor
    return found


def _partner(tensors: Mapping[str, Tensor], name: str, other: str) -> Tensor:
    if other not in tensors:
        raise CheckpointError(f"Tensor {name!r} is quantised and {other!r}, its scale, is missing.")
    return tensors[other]


class _Float32:
    """What dequantised tensors have in common."""

    dtype = np.dtype(np.float32)
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one index of the first axis, as it is read."""
        return int(np.prod(self.shape[1:])) * self.dtype.itemsize


@dataclass(frozen=True)
class Fp8Tensor(_Float32):
    """A matrix [out, in] in e4m3 whose scales each belong to a rectangle of it."""

    weight: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        scales, shape = self.scale.shape, self.weight.shape
        fits = len(scales) == len(shape) == 2 and all(
            _side(size, count) for size, count in zip(shape, scales, strict=True)
        )
        if scales not in ((), (1,)) and not fits:
            raise CheckpointError(
                f"Tensor {self.scale.name!r} has the shape {list(scales)}, which is none of scales "
                f"for {list(shape)}."
            )

    @property
    def name(self) -> str:
        return self.weight.name

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.weight.shape

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop`."""
        rows = self.weight.read(start, stop).astype(np.float32)
        scale = np.asarray(self.scale.read(), np.float32)
        if scale.size == 1:
            return rows * scale.reshape(())
        high, wide = (_side(*pair) for pair in zip(self.shape, scale.shape, strict=True))
        index = np.arange(start, start + len(rows)) // high
        each = np.repeat(scale[index], wide, axis=1)[:, : rows.shape[1]]
        scaled: np.ndarray = rows * each
        return scaled

    def entry(self, index: int) -> Readable:
        """There are no stacks of matrices in this format."""
        raise CheckpointError(f"Tensor {self.name!r} holds one matrix, and several are called for.")


def _side(size: int, count: int) -> int:
    """Of a scale's rectangle: numbers of an axis that it covers; 0 if none is known."""
    if count in (1, size):
        return size // count
    return _RECTANGLE if count == -(-size // _RECTANGLE) else 0


@dataclass(frozen=True)
class MxFp4Tensor(_Float32):
    """Matrices [E, in, out] from blocks that lie along `in`."""

    name: str
    blocks: Tensor
    scales: Tensor

    def __post_init__(self) -> None:
        blocks, scales = self.blocks.shape, self.scales.shape
        if len(blocks) < 3 or blocks[-1] != _BYTES or blocks[:-1] != scales:
            raise CheckpointError(
                f"Tensors {self.blocks.name!r} and {self.scales.name!r} have the shapes "
                f"{list(blocks)} and {list(scales)}; they must be [..., n, {_BYTES}] and [..., n]."
            )

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        *lead, outputs, blocks, _ = self.blocks.shape
        return (*lead, blocks * _BLOCK, outputs)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Indices `start` to `stop` of the first axis."""
        if len(self.shape) == 2:
            return self._matrix[start:stop]
        stop = self.shape[0] if stop is None else stop
        return np.stack([self.entry(index).read() for index in range(start, stop)])

    def entry(self, index: int) -> Readable:
        """One matrix."""
        return replace(self, blocks=self.blocks.entry(index), scales=self.scales.entry(index))

    @cached_property
    def _matrix(self) -> np.ndarray:
        """[in, out], decoded once: a slice of its rows needs all of its blocks."""
        packed, scales = self.blocks.read(), self.scales.read()
        numbers = np.stack([_NUMBERS[packed & 15], _NUMBERS[packed >> 4]], axis=-1)
        exponents = scales.astype(np.int32)[..., None] - 127
        flat = numbers.reshape(*packed.shape[:-1], _BLOCK)
        matrix: np.ndarray = np.ldexp(flat, exponents).reshape(packed.shape[0], -1).T
        return matrix
