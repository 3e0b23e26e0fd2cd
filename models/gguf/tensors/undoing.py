"""What llama.cpp's converter does to the numbers of one tensor, undone as they are read.

    rows of heads in pairs                 HalvedHeads
    norms that the model adds 1 to         LessOne
    [out, in], of one or of all experts    Turned, EachTurned
    A = -exp(A_log)                        LogRates
    [channels, 1, width] without the 1     Reshaped
    gate and up of experts in one          HalfOfEach

Owns that arithmetic. Refuses to know names and families (`names.py`, `families/`), and JAX.
"""

import math
from dataclasses import dataclass

import numpy as np

from models.errors import CheckpointError
from models.quantised.tensors import Computed, Readable


@dataclass(frozen=True)
class Wrapped(Computed):
    """A tensor that reads otherwise than the one within."""

    tensor: Readable

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.tensor.name

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self.tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.tensor.shape


@dataclass(frozen=True)
class HalvedHeads(Wrapped):
    """Rows 0, 2, 4 .. of each head first, then 1, 3, 5 .. ."""

    heads: int

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop`, of heads that are read whole."""
        stop = self.shape[0] if stop is None else stop
        size = self.shape[0] // self.heads
        first, last = start // size, -(-stop // size)
        rows = self.tensor.read(first * size, last * size)
        pairs = rows.reshape(last - first, size // 2, 2, *self.shape[1:])
        halves = pairs.swapaxes(1, 2).reshape(rows.shape)
        return halves[start - first * size : stop - first * size]


@dataclass(frozen=True)
class LessOne(Wrapped):
    """w - 1, so that what the model adds gives w again."""

    dtype = np.dtype(np.float32)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Indices `start` to `stop`, in float32."""
        less: np.ndarray = self.tensor.read(start, stop).astype(np.float32) - np.float32(1)
        return less


@dataclass(frozen=True)
class Turned(Wrapped):
    """[out, in] as [in, out]."""

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.tensor.shape[::-1]

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop`, for which the whole tensor is read."""
        return self.tensor.read().T[start:stop]


@dataclass(frozen=True)
class EachTurned(Wrapped):
    """[experts, out, in] as [experts, in, out]."""

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        experts, outputs, inputs = self.tensor.shape
        return experts, inputs, outputs

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Experts `start` to `stop`."""
        return self.tensor.read(start, stop).swapaxes(1, 2)

    def entry(self, index: int) -> Readable:
        """One expert."""
        return Turned(self.tensor.entry(index))


@dataclass(frozen=True)
class LogRates(Wrapped):
    """log(-w) of w = -exp(..), to half a unit in the last place."""

    dtype = np.dtype(np.float32)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Indices `start` to `stop`; raises CheckpointError if one of them decays nothing."""
        rates = self.tensor.read(start, stop).astype(np.float64)
        if not np.all((rates < 0) & np.isfinite(rates)):
            wrong = rates[~((rates < 0) & np.isfinite(rates))][0]
            raise CheckpointError(
                f"Tensor {self.name!r} has the rate {wrong:g}, and rates of decay are below 0; "
                "convert the model again."
            )
        logarithms: np.ndarray = np.log(-rates).astype(np.float32)
        return logarithms

    def entry(self, index: int) -> Readable:
        """One index of the first axis."""
        return LogRates(self.tensor.entry(index))


@dataclass(frozen=True)
class Reshaped(Wrapped):
    """The same numbers in the same order."""

    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.axes

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Indices `start` to `stop` of its own first axis."""
        stop = self.shape[0] if stop is None else stop
        inner, held = math.prod(self.shape[1:]), math.prod(self.tensor.shape[1:])
        if held % inner:
            return self.tensor.read().reshape(self.shape)[start:stop]
        each = held // inner  # of ours to one of the tensor's
        first, last = start // each, -(-stop // each)
        rows = self.tensor.read(first, last).reshape(-1, *self.shape[1:])
        return rows[start - first * each : stop - first * each]

    def entry(self, index: int) -> Readable:
        """All of it, if the first axis has nothing but one entry."""
        if self.axes[0] != 1:
            return super().entry(index)
        return Reshaped(self.tensor, self.axes[1:])


@dataclass(frozen=True)
class Row(Wrapped):
    """[D] as [1, D]: ggml's tools leave out a last axis of one."""

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return 1, *self.tensor.shape

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop`."""
        return self.tensor.read()[None][start:stop]


@dataclass(frozen=True)
class Rows(Wrapped):
    """Some that follow each other."""

    first: int
    count: int

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.count, *self.tensor.shape[1:]

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop` of these."""
        stop = self.count if stop is None else stop
        return self.tensor.read(self.first + start, self.first + stop)


@dataclass(frozen=True)
class HalfOfEach(Wrapped):
    """The first or the second half of each expert's outputs, [experts, outputs, inputs]."""

    second: bool

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        experts, outputs, inputs = self.tensor.shape
        return experts, outputs // 2, inputs

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Of experts `start` to `stop`."""
        half = self.shape[1]
        return self.tensor.read(start, stop)[:, self.second * half :][:, :half]

    def entry(self, index: int) -> Readable:
        """Of one expert."""
        half = self.shape[1]
        return Rows(self.tensor.entry(index), self.second * half, half)


def flat(tensor: Readable) -> Readable:
    """As a vector."""
    return tensor if len(tensor.shape) == 1 else Reshaped(tensor, (math.prod(tensor.shape),))


def convolution(tensor: Readable) -> Readable:
    """[channels, width] as [channels, 1, width], whatever axes of length 1 there are besides."""
    width = tensor.shape[-1]
    return Reshaped(tensor, (math.prod(tensor.shape) // width, 1, width))


@dataclass(frozen=True)
class Reordered(Wrapped):
    """Heads in another order, of rows behind the first ones, which stay."""

    heads: tuple[int, ...]  # the tensor's, in our order
    size: int  # rows of a head
    before: int = 0

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop`."""
        stop = self.shape[0] if stop is None else stop
        parts = [self.tensor.read(start, min(stop, self.before))] if start < self.before else []
        first = max(start - self.before, 0)
        while first < stop - self.before:
            head, row = divmod(first, self.size)
            last = min(stop - self.before, first - row + self.size)
            place = self.before + self.heads[head] * self.size
            parts.append(self.tensor.read(place + row, place + row + last - first))
            first = last
        return np.concatenate(parts) if parts else self.tensor.read(start, start)


@dataclass(frozen=True)
class ReorderedInputs(Wrapped):
    """The same of the columns of a matrix."""

    heads: tuple[int, ...]
    size: int

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop`."""
        rows = self.tensor.read(start, stop)
        heads = rows.reshape(len(rows), len(self.heads), self.size)
        return heads[:, list(self.heads)].reshape(rows.shape)
