"""Reads what `torch.save` writes of a state dict, or of one tensor: names, and rows.

    since PyTorch 1.6: a zip archive           before: five pickles, and the storages behind them
    ┌──────────────────────────────────┐       ┌────────┬──────────┬────────┬──────┬──────┬───────┐
    │ model/data.pkl    the state dict │       │ magic  │ protocol │ system │ dict │ keys │ bytes │
    │ model/data/0      a storage  ... │       └────────┴──────────┴────────┴──────┴──────┴───────┘
    └──────────────────────────────────┘

Owns the checks of one file: whatever its bytes say, reading it ends in CheckpointError or in
tensors that lie within it. Refuses to run it (`opcodes.py` says how), and to know which tensors a
model needs. Rows are read as those of safetensors files are.
Source: torch/serialization.py
"""

import math
import os
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from models.checkpoints.safetensors import Tensor
from models.errors import CheckpointError
from models.quantised.tensors import Computed, Readable
from models.torch_file.opcodes import (
    MAX_PICKLE_BYTES,
    PickleError,
    Storage,
    View,
    read_pickle,
)

ZIP = b"PK\x03\x04"
LFS = b"version https://git-lfs"
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
LOCAL_HEADER = struct.Struct("<4s22sHH")  # signature, ..., length of the name and of the extras
MAX_ENTRIES = 2**20

Places = Mapping[str, tuple[int, int]]  # storage's key -> where it lies in the file, and its bytes


@dataclass(frozen=True)
class StridedTensor(Computed):
    """A tensor whose rows do not lie back to back: one that was transposed, or a part of one."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in numbers
    span: Tensor  # from its first number to its last

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Indices `start` to `stop` of the first axis; raises CheckpointError."""
        stop = self.shape[0] if stop is None else stop
        shape = (max(0, stop - start), *self.shape[1:])
        if 0 in shape:
            return np.empty(shape, self.dtype)
        last = sum((n - 1) * s for n, s in zip(shape, self.strides, strict=True))
        first = start * self.strides[0]
        numbers = self.span.read(first, first + last + 1)
        steps = tuple(stride * self.dtype.itemsize for stride in self.strides)
        return np.ascontiguousarray(np.lib.stride_tricks.as_strided(numbers, shape, steps))

    def entry(self, index: int) -> Readable:
        """One index of the first axis, as a tensor of its own."""
        moved = replace(
            self.span, offset=self.span.offset + index * self.strides[0] * self.dtype.itemsize
        )
        return replace(self, shape=self.shape[1:], strides=self.strides[1:], span=moved)


class TorchFile:
    """An open, checked file. Tensors can be read until it is closed; use it in a `with`."""

    def __init__(self, path: Path) -> None:
        """Open `path` and check it; raises CheckpointError if anything in it is wrong."""
        self.path = path
        try:
            self._file: BufferedReader = open(path, "rb")  # noqa: SIM115
        except OSError as error:
            raise CheckpointError(f"Cannot open {path}: {error.strerror}.") from error
        try:
            self.tensors: Mapping[str, Readable] = self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "TorchFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read(self) -> dict[str, Readable]:
        held, places = self._held()
        if type(held) is not dict:
            self._fail(f"it holds a {type(held).__name__} and no state dict")
        return {name: self._tensor(name, value, places) for name, value in held.items()}

    def _held(self) -> tuple[Any, Places]:
        """What was saved, and where its storages lie."""
        start = self._file.read(len(LFS))
        if start == LFS:
            raise CheckpointError(
                f"{self.path} is a Git LFS pointer, not the weights; run `git lfs pull`."
            )
        try:
            archive = start.startswith(ZIP)
            return self._archive() if archive else self._pickles()
        except PickleError as error:
            self._fail(str(error), error.instead)

    def _archive(self) -> tuple[Any, Places]:
        try:
            with zipfile.ZipFile(self._file) as archive:
                entries = {entry.filename: entry for entry in archive.infolist()}
                prefix = self._prefix(entries)
                order = entries.get(f"{prefix}byteorder")
                if order and (order.file_size > 8 or archive.read(order) != b"little"):
                    self._fail("its numbers are not little-endian")
                with archive.open(f"{prefix}data.pkl") as pickle:
                    held = read_pickle(pickle)
                pickle_places = self._places(entries, f"{prefix}data/")
        except (  # what zipfile raises for archives that are not sound
            zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError, OSError,
            struct.error, KeyError, IndexError, OverflowError,
        ) as error:  # fmt: skip
            self._fail(f"its zip archive is malformed ({type(error).__name__})")
        return held, pickle_places

    def _prefix(self, entries: Mapping[str, zipfile.ZipInfo]) -> str:
        """ "pytorch_model/": the folder in which everything lies."""
        if len(entries) > MAX_ENTRIES:
            self._fail(f"it has {len(entries)} entries")
        found = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(found) != 1:
            self._fail("it is a zip archive without one data.pkl")
        prefix = found[0].removesuffix("data.pkl")
        if f"{prefix}constants.pkl" in entries:
            self._fail("it is a TorchScript program", "give the folder of the state dict")
        pickle = entries[found[0]]
        if pickle.compress_type != zipfile.ZIP_STORED or pickle.file_size > MAX_PICKLE_BYTES:
            self._fail(f"its pickle is compressed or has over {MAX_PICKLE_BYTES} bytes")
        return prefix

    def _places(self, entries: Mapping[str, zipfile.ZipInfo], prefix: str) -> Places:
        places: dict[str, tuple[int, int]] = {}
        size = os.fstat(self._file.fileno()).st_size
        for name, entry in entries.items():
            if not name.startswith(prefix):
                continue
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                self._fail("its storages are compressed or encrypted", "save it again")
            self._file.seek(entry.header_offset)
            signature, _, named, extra = LOCAL_HEADER.unpack(self._file.read(LOCAL_HEADER.size))
            start = entry.header_offset + LOCAL_HEADER.size + named + extra
            if signature != ZIP or start + entry.file_size > size:
                self._fail(f"the storage {name.removeprefix(prefix)[:40]!r} is not in the file")
            places[name.removeprefix(prefix)] = start, entry.file_size
        return places

    def _pickles(self) -> tuple[Any, Places]:
        self._file.seek(0)
        if self._file.read(1) != b"\x80":
            self._fail("it is neither a zip archive nor a pickle")
        self._file.seek(0)
        magic, protocol, system = (read_pickle(self._file) for _ in range(3))
        if type(magic) is not int or magic != MAGIC or protocol != PROTOCOL:
            self._fail("it is a pickle that torch.save has not written")
        if type(system) is not dict or system.get("little_endian") is not True:
            self._fail("its numbers are not little-endian")
        held, keys = read_pickle(self._file), read_pickle(self._file)
        if type(keys) is not list:
            self._fail("it has no list of storages")
        return held, self._behind(keys, _widths(held))

    def _behind(self, keys: list[Any], widths: Mapping[str, int]) -> Places:
        """Where the storages lie behind the pickles, each after its count of numbers."""
        places: dict[str, tuple[int, int]] = {}
        at, size = self._file.tell(), os.fstat(self._file.fileno()).st_size
        for key in keys:
            if type(key) is not str or key not in widths or key in places:
                self._fail("its list of storages names one that no tensor has, or one twice")
            self._file.seek(at)
            count = int.from_bytes(self._file.read(8), "little")
            places[key] = at + 8, count * widths[key]
            at += 8 + count * widths[key]
            if at > size:
                self._fail("it ends inside a storage")
        return places

    def _tensor(self, name: str, value: Any, places: Places) -> Readable:
        if type(value) is not View:
            self._fail(
                f"{name[:80]!r} is a {type(value).__name__} and no tensor",
                "save the state dict by itself",
            )
        storage = value.storage
        at, held = places.get(storage.key, (0, -1))
        if held != storage.count * storage.dtype.itemsize:
            self._fail(f"the storage of tensor {name[:80]!r} is missing or of another size")
        offset = at + value.offset * value.dtype.itemsize
        if 0 in value.shape or value.strides == _back_to_back(value.shape):
            return Tensor(name, value.dtype, value.shape, offset, self._file)
        lengths = zip(value.shape, value.strides, strict=True)
        span = 1 + sum((length - 1) * stride for length, stride in lengths)
        numbers = Tensor(name, value.dtype, (span,), offset, self._file)
        return StridedTensor(name, value.dtype, value.shape, value.strides, numbers)

    def _fail(self, what: str, instead: str = "download it again") -> NoReturn:
        raise CheckpointError(f"{self.path} is not a PyTorch file to read: {what}; {instead}.")


class TensorFile(TorchFile):
    """One that holds a tensor and nothing around it: `tensors` has that one."""

    def _read(self) -> dict[str, Readable]:
        return {"tensor": self._tensor("tensor", *self._held())}


def _widths(held: Any) -> dict[str, int]:
    """Storage's key -> bytes of one number, of those that tensors have."""
    values = held.values() if type(held) is dict else (held,)
    storages: list[Storage] = [value.storage for value in values if type(value) is View]
    return {storage.key: storage.dtype.itemsize for storage in storages}


def _back_to_back(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
