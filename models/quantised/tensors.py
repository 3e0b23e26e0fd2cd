"""Tensors of quantised checkpoints: numbers of few bits, their scales, and what both stand for.

    w[c, a] = scale[c, g] * (numbers[c, a] - zeros[c, g])     g = a // group     C outputs, A inputs

Owns the arithmetic, and the unpacking of words that hold several numbers. Reads rows by range, as
tensors of files are read. Knows no format by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np

from models.checkpoints.safetensors import Tensor
from models.errors import CheckpointError


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


class Computed:
    """What tensors have in common whose numbers are computed when they are read."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one index of the first axis, as it is read."""
        return int(np.prod(self.shape[1:])) * self.dtype.itemsize

    def entry(self, index: int) -> Readable:
        """One index of the first axis."""
        raise CheckpointError(f"Tensor {self.name!r} holds one matrix, and several are called for.")


@dataclass(frozen=True)
class PackedInts(Computed):
    """Whole numbers from 0 on, several to a word of 32 bits along one axis, the lowest first."""

    words: Tensor
    axis: int
    bits: int = 4
    order: Sequence[int] | None = None  # of a word's numbers, where they are not in their own
    offset: int = 0  # to be added

    dtype = np.dtype(np.uint8)

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.words.name

    @property
    def in_word(self) -> int:
        """How many a word holds."""
        return 32 // self.bits

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        shape = list(self.words.shape)
        shape[self.axis] *= self.in_word
        return tuple(shape)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop`."""
        stop = self.shape[0] if stop is None else stop
        if self.axis:
            return self._numbers(self.words.read(start, stop))
        first, last = start // self.in_word, -(-stop // self.in_word)
        rows = self._numbers(self.words.read(first, last))
        return rows[start - first * self.in_word : stop - first * self.in_word]

    def _numbers(self, words: np.ndarray) -> np.ndarray:
        shifts = np.arange(0, 32, self.bits, dtype=np.uint32)
        if self.order is not None:
            shifts = shifts[np.argsort(self.order)]
        place = (None, slice(None), None) if self.axis == 0 else (None, None, slice(None))
        wide = np.expand_dims(words.view(np.uint32), self.axis + 1) >> shifts[place]
        numbers = (wide & np.uint32(2**self.bits - 1)).astype(np.uint8) + np.uint8(self.offset)
        shape = list(words.shape)
        shape[self.axis] *= self.in_word
        return numbers.reshape(shape)


@dataclass(frozen=True)
class Scales(Computed):
    """[C, groups] from one number, from one for each output, or from one for each rectangle."""

    tensor: Tensor
    outputs: int
    each: int  # outputs that have one in common

    dtype = np.dtype(np.float32)

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.tensor.name

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.outputs, self._values.shape[1]

    @cached_property
    def _values(self) -> np.ndarray:
        values = np.asarray(self.tensor.read(), np.float32)
        return values.reshape(len(values) if values.ndim else 1, -1)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Of outputs `start` to `stop`."""
        stop = self.outputs if stop is None else stop
        rows: np.ndarray = self._values[np.arange(start, stop) // self.each]
        return rows


class QuantisedTensor(Computed):
    """A tensor that reads as if it were not quantised, and the parts that it is made of.

    These lie [..., C, A] and [..., C, groups], or [A, C] and [groups, C] where `turned`.
    """

    numbers: Readable
    scale: Readable
    group: int  # inputs that have a scale in common
    zeros: Readable | None
    turned: bool
    bits: int


@dataclass(frozen=True)
class QuantisedMatrix(QuantisedTensor):
    """A matrix [C, A].

    Without zeros, numbers that were packed mean zero in the middle, and others what they are.
    """

    name: str
    numbers: Readable
    scale: Readable
    group: int
    zeros: Readable | None = None
    turned: bool = False
    bits: int = 8

    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.numbers.shape[::-1] if self.turned else self.numbers.shape

    @property
    def middle(self) -> int:
        """The number that means zero, without zeros."""
        return 2 ** (self.bits - 1) if self.numbers.dtype == np.uint8 else 0

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Outputs `start` to `stop`, in float32."""
        numbers, scale, zeros = (
            None if part is None else self._outputs(part, start, stop).astype(np.float32)
            for part in (self.numbers, self.scale, self.zeros)
        )
        if numbers is None or scale is None:
            raise TypeError("numbers and scales are always there")
        centred = numbers - (self.middle if zeros is None else self._each(zeros))
        matrix: np.ndarray = centred * self._each(scale)
        return matrix

    def _outputs(self, part: Readable, start: int, stop: int | None) -> np.ndarray:
        return part.read().T[start:stop] if self.turned else part.read(start, stop)

    def _each(self, of_groups: np.ndarray) -> np.ndarray:
        """[C, groups] -> [C, A]."""
        each: np.ndarray = np.repeat(of_groups, self.group, axis=1)[:, : self.shape[1]]
        return each
