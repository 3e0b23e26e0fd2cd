"""MXFP4: numbers of four bits in blocks of 32 with a power of two in common, as in gpt-oss.

    x_blocks  uint8 [E, out, in / 32, 16]: two numbers a byte, the lower half first
    x_scales  uint8 [E, out, in / 32]: powers of two, 127 is one      ->  x [E, in, out]

Owns what the bits mean. Source: OCP Microscaling Formats 1.0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from models.checkpoints.safetensors import Tensor
from models.errors import CheckpointError
from models.quantised.tensors import Computed, QuantisedTensor, Readable

_E2M1 = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], np.float32)
_NUMBERS = np.concatenate([_E2M1, -_E2M1])
_BLOCK = 32  # numbers with a scale in common
_BYTES = _BLOCK // 2


def read_mxfp4(tensors: Mapping[str, Tensor]) -> dict[str, Readable]:
    """The checkpoint with blocks and scales joined.

    Raises:
        CheckpointError: scales are missing or have another shape than their blocks call for.
    """
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


@dataclass(frozen=True)
class _Codes(Computed):
    """The numbers in blocks, as their bits [..., out, in]."""

    blocks: Tensor

    dtype = np.dtype(np.uint8)

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.blocks.name

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        *lead, blocks, _ = self.blocks.shape
        return (*lead, blocks * _BLOCK)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Indices `start` to `stop` of the first axis."""
        packed = self.blocks.read(start, stop)
        return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-2], -1)

    def entry(self, index: int) -> Readable:
        """One matrix."""
        return replace(self, blocks=self.blocks.entry(index))


@dataclass(frozen=True)
class MxFp4Tensor(QuantisedTensor):
    """Matrices [E, in, out] from blocks that lie along `in`."""

    name: str
    blocks: Tensor
    scales: Tensor

    dtype = np.dtype(np.float32)
    group, zeros, turned, bits = _BLOCK, None, False, 4

    def __post_init__(self) -> None:
        blocks, scales = self.blocks.shape, self.scales.shape
        if len(blocks) < 3 or blocks[-1] != _BYTES or blocks[:-1] != scales:
            raise CheckpointError(
                f"Tensors {self.blocks.name!r} and {self.scales.name!r} have the shapes "
                f"{list(blocks)} and {list(scales)}; they must be [..., n, {_BYTES}] and [..., n]."
            )

    @property
    def numbers(self) -> Readable:  # type: ignore[override]
        """Their bits, [..., out, in]."""
        return _Codes(self.blocks)

    @property
    def scale(self) -> Readable:  # type: ignore[override]
        """Exponents, [..., out, groups]."""
        return self.scales

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
        codes, scales = self.numbers.read(), self.scales.read()
        exponents = np.repeat(scales.astype(np.int32) - 127, _BLOCK, axis=1)
        matrix: np.ndarray = np.ldexp(_NUMBERS[codes], exponents).T
        return matrix
