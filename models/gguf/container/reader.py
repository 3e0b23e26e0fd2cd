"""Reads a GGUF file strictly: its metadata, what each tensor is called, and its rows by byte range.

    ┌────────┬─────────┬─────────────┬────────────┬──────────────────┬─────────┬──────────────┐
    │ "GGUF" │ version │ how many    │ key, type, │ name, axes, type │ padding │ tensors,     │
    │        │ u32     │ tensors and │ value  ... │ and place    ... │ to the  │ each at a    │
    │        │         │ keys: 2 u64 │            │                  │ grid    │ grid's point │
    └────────┴─────────┴─────────────┴────────────┴──────────────────┴─────────┴──────────────┘

Owns the checks of one file: whatever its bytes say, reading it ends in CheckpointError or in
tensors that lie within it. Refuses to know what keys and names mean, and JAX.
Rows are read as those of safetensors files are.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3)
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import ml_dtypes
import numpy as np

from models.checkpoints.safetensors import Tensor
from models.errors import CheckpointError
from models.gguf.container.blocks import BLOCK_FORMATS, BlockFormat
from models.quantised.tensors import Computed, Readable

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_HEADER_BYTES = 64 * 1024 * 1024  # those with 256,000 tokens have about 20 million
MAX_TENSORS = 2**20
MAX_KEYS = 2**16
MAX_AXES = 4
MAX_GRID = 2**20

STRING, ARRAY, BOOL, FLOAT32 = 8, 9, 7, 6
NUMBERS: Mapping[int, np.dtype] = {
    0: np.dtype("u1"), 1: np.dtype("i1"), 2: np.dtype("<u2"), 3: np.dtype("<i2"),
    4: np.dtype("<u4"), 5: np.dtype("<i4"), FLOAT32: np.dtype("<f4"), BOOL: np.dtype("u1"),
    10: np.dtype("<u8"), 11: np.dtype("<i8"), 12: np.dtype("<f8"),
}  # fmt: skip
PLAIN: Mapping[int, np.dtype] = {
    0: np.dtype("<f4"), 1: np.dtype("<f2"), 28: np.dtype("<f8"), 30: np.dtype(ml_dtypes.bfloat16)
}  # fmt: skip


@dataclass(frozen=True)
class BlockTensor(Computed):
    """A tensor that reads as float32, in whatever blocks it lies."""

    name: str
    shape: tuple[int, ...]
    format: BlockFormat
    rows: Tensor  # [..., bytes of a row]

    dtype = np.dtype(np.float32)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Indices `start` to `stop` of the first axis; raises CheckpointError."""
        if len(self.shape) == 1:  # one row
            return self._numbers(self.rows.read())[start:stop]
        return self._numbers(self.rows.read(start, stop)).reshape(-1, *self.shape[1:])

    def entry(self, index: int) -> Readable:
        """One index of the first axis, as a tensor of its own."""
        if len(self.shape) < 3:
            return super().entry(index)
        return replace(self, shape=self.shape[1:], rows=self.rows.entry(index))

    def _numbers(self, packed: np.ndarray) -> np.ndarray:
        return self.format.dequantise(packed.reshape(-1, self.format.bytes)).reshape(-1)


class GGUFFile:
    """An open, checked file. Tensors can be read until it is closed; use it in a `with`."""

    def __init__(self, path: Path) -> None:
        """Open `path` and check its header; raises CheckpointError if anything in it is wrong."""
        self.path = path
        try:
            self._file: BinaryIO = open(path, "rb")  # noqa: SIM115
        except OSError as error:
            raise CheckpointError(f"Cannot open {path}: {error.strerror}.") from error
        try:
            header = _Header(self._file, path)
            self.metadata: Mapping[str, Any] = header.metadata()
            self.tensors: Mapping[str, Readable] = header.tensors(self.metadata)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "GGUFFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _Header:
    """A cursor that never leaves the file."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path, self._at = file, path, 0
        self._size = os.fstat(file.fileno()).st_size
        magic = self._take(4)
        if magic == b"vers":  # "version https://git-lfs.github.com/spec/v1"
            raise CheckpointError(
                f"{path} is a Git LFS pointer, not the model; run `git lfs pull`."
            )
        if magic != MAGIC:
            self._fail(f"it begins with {magic!r} and not with {MAGIC!r}")
        version = self._integer(4)
        if version not in VERSIONS:
            self._fail(f"its version is {version}, and only little-endian 2 and 3 are read")
        self._tensors, self._keys = self._integer(8), self._integer(8)
        if self._tensors > MAX_TENSORS or self._keys > MAX_KEYS:
            self._fail(f"it claims {self._tensors} tensors and {self._keys} keys")

    def metadata(self) -> dict[str, Any]:
        """Key -> number, string, list of strings or NumPy array."""
        found: dict[str, Any] = {}
        for _ in range(self._keys):
            key = self._string()
            if key in found:
                self._fail(f"the key {key[:80]!r} appears twice")
            found[key] = self._value(self._integer(4), key)
        return found

    def tensors(self, metadata: Mapping[str, Any]) -> dict[str, Readable]:
        """Name -> tensor, all of them within the file and none in another."""
        grid = metadata.get("general.alignment", 32)
        if type(grid) is not int or not 8 <= grid <= MAX_GRID or grid % 8:
            self._fail("general.alignment is no multiple of 8")
        found: dict[str, Readable] = {}
        entries = [self._entry() for _ in range(self._tensors)]
        data = -(-self._at // grid) * grid
        places: list[tuple[int, int, str]] = []
        for name, shape, kind, offset in entries:
            if name in found:
                self._fail(f"the tensor {name!r} appears twice")
            found[name], size = self._tensor(name, shape, kind, data + offset)
            if offset % grid or data + offset + size > self._size:
                self._fail(f"tensor {name!r} lies at {offset} with {size} bytes, which cannot be")
            places.append((data + offset, size, name))
        self._check_apart(sorted(places))
        return found

    def _check_apart(self, places: list[tuple[int, int, str]]) -> None:
        end = 0
        for start, size, name in places:
            if start < end:
                self._fail(f"tensor {name!r} overlaps the one before it")
            end = start + size

    def _entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name, axes = self._string(), self._integer(4)
        if not 1 <= axes <= MAX_AXES:
            self._fail(f"tensor {name[:80]!r} has {axes} axes")
        shape = tuple(self._integer(8) for _ in range(axes))[::-1]  # ggml counts from the last
        if 0 in shape or math.prod(shape) >= 2**48:
            self._fail(f"tensor {name[:80]!r} has the shape {list(shape)}")
        return name, shape, self._integer(4), self._integer(8)

    def _tensor(
        self, name: str, shape: tuple[int, ...], kind: int, place: int
    ) -> tuple[Readable, int]:
        if kind in PLAIN:
            dtype = PLAIN[kind]
            size = math.prod(shape) * dtype.itemsize
            return Tensor(name, dtype, shape, place, self._file), size
        if kind not in BLOCK_FORMATS:
            names = ", ".join(block.name for block in BLOCK_FORMATS.values())
            self._fail(
                f"tensor {name[:80]!r} is of ggml's type {kind}, and those read are "
                f"F32, F16, BF16, F64, {names}",
                "use another quantisation of the model",
            )
        block = BLOCK_FORMATS[kind]
        if shape[-1] % block.numbers:
            self._fail(f"rows of {shape[-1]} are no whole {block.name} blocks, in {name[:80]!r}")
        width = shape[-1] // block.numbers * block.bytes
        held = (*shape[:-1], width) if len(shape) > 1 else (1, width)
        rows = Tensor(name, np.dtype(np.uint8), held, place, self._file)
        return BlockTensor(name, shape, block, rows), math.prod(held)

    def _value(self, kind: int, key: str) -> Any:
        if kind == STRING:
            return self._string()
        if kind == ARRAY:
            return self._array(self._integer(4), self._integer(8), key)
        if kind not in NUMBERS:
            self._fail(f"the key {key[:80]!r} has a value of type {kind}")
        number = np.frombuffer(self._take(NUMBERS[kind].itemsize), NUMBERS[kind])[0]
        if kind == FLOAT32:
            return float(str(number))  # 1e-05 and not 9.999999747378752e-06
        return bool(number) if kind == BOOL else number.item()

    def _array(self, kind: int, count: int, key: str) -> list[str] | np.ndarray:
        if kind != STRING and kind not in NUMBERS:
            self._fail(f"the key {key[:80]!r} has an array of type {kind}")
        width = 8 if kind == STRING else NUMBERS[kind].itemsize  # at least
        if count * width > self._left:
            self._fail(f"the key {key[:80]!r} claims {count} values")
        if kind == STRING:
            return [self._string() for _ in range(count)]
        return np.frombuffer(self._take(count * width), NUMBERS[kind])

    def _string(self) -> str:
        try:
            return self._take(self._integer(8)).decode("utf-8")
        except UnicodeDecodeError:
            self._fail("a string in its header is not UTF-8")

    def _integer(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    @property
    def _left(self) -> int:
        return min(self._size, MAX_HEADER_BYTES) - self._at

    def _take(self, count: int) -> bytes:
        taken = self._file.read(count) if count <= self._left else b""
        if len(taken) < count:
            self._fail(f"its header ends at byte {self._at} before {count} more that it claims")
        self._at += count
        return taken

    def _fail(self, what: str, instead: str = "download it again") -> NoReturn:
        raise CheckpointError(f"{self._path} is not a GGUF file to read: {what}; {instead}.")
