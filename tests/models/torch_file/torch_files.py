"""Writes PyTorch's files without PyTorch, opcode by opcode."""

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

STORAGES = {"float32": "FloatStorage", "bfloat16": "BFloat16Storage", "int64": "LongStorage"}


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def counts(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(kind: str, key: str, count: int, more: bytes = b"") -> bytes:
    return (
        b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + number(count)
        + more + b"tQ"
    )  # fmt: skip


def view(held: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    hooks = name("collections", "OrderedDict") + b")R"
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    return (
        rebuild + b"(" + held + number(offset) + counts(shape) + counts(strides) + b"\x89"
        + hooks + b"tR"
    )  # fmt: skip


def state_dict(items: Mapping[str, bytes]) -> bytes:
    held = b"".join(text(key) + value for key, value in items.items())
    return b"\x80\x02" + name("collections", "OrderedDict") + b")R(" + held + b"u."


def archive(path: Path, pickle: bytes, storages: Mapping[str, bytes], **more: bytes) -> None:
    """A zip archive as PyTorch has written it since 1.6."""
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("model/data.pkl", pickle)
        for key, data in storages.items():
            written.writestr(f"model/data/{key}", data)
        for key, data in more.items():
            written.writestr(f"model/{key}", data)


def write_torch_file(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write `tensors`, each in a storage of its own."""
    items, storages = {}, {}
    for place, (key, array) in enumerate(tensors.items()):
        strides = tuple(stride // array.itemsize for stride in array.strides)
        held = storage(STORAGES[array.dtype.name], str(place), array.size)
        items[key] = view(held, 0, array.shape, strides)
        storages[str(place)] = array.tobytes()
    archive(path, state_dict(items), storages)
