"""Reads the safetensors format strictly: what each tensor is called, and its rows by byte range.

    ┌──────────────┬───────────────────────┬──────────────────────────────┐
    │ u64, little  │ JSON header, N bytes  │ tensors, back to back        │
    │ endian: N    │ {"name": {...}, ...}  │ data_offsets count from here │
    └──────────────┴───────────────────────┴──────────────────────────────┘

Owns the checks of one file. Refuses to know which tensors a model needs, and JAX.
Rows are read with `pread` into memory of their own, not mapped: a mapped file counts a second time
against the process's memory, and kills the process when somebody truncates it.
Format: https://github.com/huggingface/safetensors#format
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

import ml_dtypes
import numpy as np

from models.checkpoints.host_arrays import host_zeros
from models.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000  # the limit of the format's own implementation
MAX_AXES = 64  # NumPy's limit
METADATA = "__metadata__"
DTYPES: Mapping[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file: its dtype and shape are known, its bytes are still on disk."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file
    file: BinaryIO

    @property
    def row_bytes(self) -> int:
        """Bytes of one index of the first axis (of the whole tensor if it has no axis)."""
        return self.dtype.itemsize * math.prod(self.shape[1:])

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Indices `start` to `stop` of the first axis, read from disk into a new array.

        Raises CheckpointError if the file has become shorter or unreadable since it was opened.
        """
        if not self.shape:
            return self._fill(np.empty((), self.dtype))
        stop = self.shape[0] if stop is None else stop
        rows = np.empty((stop - start, *self.shape[1:]), self.dtype)
        return self._fill(rows, start * self.row_bytes)

    def read_to_stay(self) -> np.ndarray:
        """All of it, in memory that a CPU's steps read well; raises as `read`."""
        return self._fill(host_zeros(self.shape, self.dtype))

    def entry(self, index: int) -> "Tensor":
        """One index of the first axis, as a tensor of its own."""
        return replace(self, shape=self.shape[1:], offset=self.offset + index * self.row_bytes)

    def _fill(self, array: np.ndarray, start: int = 0) -> np.ndarray:
        """`array`, filled with the tensor's bytes from `start` on."""
        out, done = array.reshape(-1).view(np.uint8), 0
        while done < len(out):
            try:
                got = os.preadv(self.file.fileno(), [out[done:].data], self.offset + start + done)
            except OSError as error:
                raise CheckpointError(f"Cannot read {self.file.name}: {error}.") from error
            if got == 0:
                raise CheckpointError(
                    f"{self.file.name} ended inside tensor {self.name!r}: it was changed while "
                    f"being read; download it again and do not write to it during loading."
                )
            done += got
        return array


class SafetensorsFile:
    """An open, checked file. Tensors can be read until it is closed; use it in a `with`."""

    def __init__(self, path: Path) -> None:
        """Open `path` and check its header; raises CheckpointError if anything in it is wrong."""
        self.path = path
        try:
            self._file: BinaryIO = open(path, "rb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise CheckpointError(f"Cannot open {path}: {error.strerror}.") from error
        try:
            self.tensors: Mapping[str, Tensor] = _read_header(self._file, path)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file; tensors already read stay valid."""
        self._file.close()

    def __enter__(self) -> "SafetensorsFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _fail(path: Path, what: str) -> NoReturn:
    raise CheckpointError(f"{path} is not a sound safetensors file: {what}; download it again.")


def _read_header(file: BinaryIO, path: Path) -> dict[str, Tensor]:
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8) if size >= 8 else b""
    if len(prefix) < 8:
        _fail(path, f"it has {size} bytes, fewer than the 8 of the header's length")
    if prefix == b"version ":  # "version https://git-lfs.github.com/spec/v1"
        raise CheckpointError(f"{path} is a Git LFS pointer, not the weights; run `git lfs pull`.")
    length = int.from_bytes(prefix, "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        _fail(path, f"its header claims {length} bytes but the file has {size}")
    header = _parse(file.read(length), path)
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        _fail(path, f"{METADATA} is not an object of strings")
    data = 8 + length
    tensors = {name: _tensor(name, entry, data, file, path) for name, entry in header.items()}
    _check_layout(tensors.values(), data, size, path)
    return tensors


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = dict(pairs)
        if len(keys) != len(pairs):
            raise ValueError("a name appears twice")
        return keys

    if not text.startswith(b"{"):
        _fail(path, "its header does not start with '{'")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    # RecursionError: brackets nested thousands deep
    except (ValueError, RecursionError) as error:
        _fail(path, f"its header is not valid JSON ({error})")
    return cast("dict[str, Any]", header)  # it starts with '{'


def _tensor(name: str, entry: Any, data: int, file: BinaryIO, path: Path) -> Tensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        _fail(path, f"tensor {name!r} does not have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        _fail(path, f"tensor {name!r} has the dtype {dtype!r}, not one of {', '.join(DTYPES)}")
    if not _naturals(shape) or len(shape) > MAX_AXES:
        _fail(path, f"tensor {name!r} has the shape {shape!r}")
    if not _naturals(offsets) or len(offsets) != 2:
        _fail(path, f"tensor {name!r} has the data_offsets {offsets!r}")
    needed, held = math.prod(shape) * DTYPES[dtype].itemsize, offsets[1] - offsets[0]
    if needed != held:
        _fail(path, f"tensor {name!r} needs {needed} bytes and its data_offsets hold {held}")
    return Tensor(name, DTYPES[dtype], tuple(shape), data + offsets[0], file)


def _naturals(value: Any) -> bool:
    """Whether `value` is a list of integers that a file's size can hold; `True` is no integer."""
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**63 for v in value)


def _check_layout(tensors: Any, data: int, size: int, path: Path) -> None:
    """The tensors must tile the data exactly: no hole, no overlap, nothing after the last."""
    end = data
    for tensor in sorted(tensors, key=lambda t: (t.offset, math.prod(t.shape))):
        if tensor.offset != end:
            kind = "overlaps the one before it" if tensor.offset < end else "follows a hole"
            _fail(path, f"tensor {tensor.name!r} {kind}")
        end += math.prod(tensor.shape) * tensor.dtype.itemsize
    if end != size:
        _fail(path, f"its tensors end at byte {end} and the file has {size}")
