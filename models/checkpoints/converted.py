"""A checkpoint that `ingot convert` wrote: the leaves themselves, so nothing is turned or joined.

    ingot.json           how they were made; written last, so a folder with it is whole
    ingot.safetensors    "layers.0.attention.qkv.kernel@1": a leaf, as device 1 of the mesh has it,
    ingot.orbax/         or the same as Orbax keeps it
    config.json ...      every file of the checkpoint but its weights

Owns the first two, and when they may be used: for the precision, the quantisation and the number
of devices that they were made for, by an Ingot that would lay out the leaves alike. Knows neither
how leaves are made of a checkpoint (`loading.py`) nor what is in them.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from models.checkpoints.checkpoint import CONVERTED, read_object
from models.checkpoints.orbax_leaves import read_orbax
from models.checkpoints.orbax_tree import LEAVES as ORBAX
from models.checkpoints.safetensors import DTYPES, SafetensorsFile, Tensor
from models.checkpoints.slices import Index
from models.errors import CheckpointError, UnsupportedError
from models.flatten import Leaf
from models.sharding import named_sharding

LEAVES = "ingot.safetensors"
READERS = 4  # leaves read at the same time
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Made(NamedTuple):
    """What the leaves were made for."""

    dtype: str
    quantization: str | None
    tensor_parallel_size: int
    platform: str  # whose kernels read quantised weights
    layout: str  # a digest of every leaf and where its numbers came from

    def settings(
        self, folder: Path, dtype: str, quantization: str | None
    ) -> tuple[str, str | None]:
        """The precision and quantisation to load with; raises CheckpointError for others."""
        if dtype not in ("auto", self.dtype):
            raise _other(folder, f"--dtype {self.dtype}", f"--dtype {dtype}")
        if quantization not in (None, self.quantization):
            have = f"--quantization {self.quantization}" if self.quantization else "no quantisation"
            raise _other(folder, have, f"--quantization {quantization}")
        return self.dtype, self.quantization


def find_made(folder: Path) -> Made | None:
    """How a folder was converted; None for a checkpoint as it was published.

    Raises CheckpointError if what it says of itself is malformed.
    """
    path = folder / CONVERTED
    if not path.is_file():
        return None
    said = read_object(path)
    try:
        made = Made(**said)
    except TypeError:
        made = None
    kinds = (str, str | None, int, str, str)
    if made is None or not all(isinstance(v, k) for v, k in zip(made, kinds, strict=True)):
        raise CheckpointError(
            f"{path} was not written by `ingot convert`; convert the model again."
        )
    return made


def layout_digest(leaves: tuple[Leaf, ...], sources: Mapping[str, Any]) -> str:
    """A name for the leaves and what they are made of, for neither to change unnoticed."""
    described = [repr(leaf) for leaf in leaves]
    described += [f"{path} {sources[path]!r}" for path in sorted(sources)]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()


def write_leaves(folder: Path, leaves: tuple[Leaf, ...], arrays: tuple[Array, ...]) -> None:
    """Write every device's part of every leaf once; raises UnsupportedError, OSError."""
    parts = [
        (f"{leaf.paths[0]}@{number}", data)
        for leaf, array in zip(leaves, arrays, strict=True)
        for number, data in sorted(_parts(leaf, array).items())
    ]
    header, place = {}, 0
    for name, data in parts:
        if data.dtype not in _NAMES:
            raise UnsupportedError(
                f"A converted checkpoint cannot hold {data.dtype}; use the checkpoint itself."
            )
        end = place + data.nbytes
        header[name] = {
            "dtype": _NAMES[data.dtype], "shape": data.shape, "data_offsets": [place, end],
        }  # fmt: skip
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with (folder / LEAVES).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, data in parts:
            file.write(np.asarray(data).tobytes())


def write_made(folder: Path, made: Made) -> None:
    (folder / CONVERTED).write_text(json.dumps(made._asdict(), indent=2))


def read_leaves(
    folder: Path, made: Made, leaves: tuple[Leaf, ...], sources: Mapping[str, Any], mesh: Mesh
) -> tuple[Array, ...]:
    """Every leaf on its devices.

    Raises:
        CheckpointError: they were made for other devices, or by another Ingot, or are damaged.
        UnsupportedError: they are kept by Orbax, which is not installed.
    """
    if made.tensor_parallel_size != mesh.size:
        size = made.tensor_parallel_size
        raise _other(
            folder, f"--tensor-parallel-size {size}", f"--tensor-parallel-size {mesh.size}"
        )
    platform = mesh.devices.flat[0].platform
    if made.quantization and made.platform != platform:
        raise _other(folder, f"a {made.platform}", f"a {platform}")
    if made.layout != layout_digest(leaves, sources):
        raise CheckpointError(
            f"{folder} was converted by an Ingot that lays out its weights in another way, or for "
            "another --max-model-len; convert the model again."
        )
    if (folder / ORBAX).is_dir():
        return read_orbax(folder, leaves, mesh)
    with SafetensorsFile(folder / LEAVES) as file, ThreadPoolExecutor(READERS) as pool:
        place = partial(_place, mesh=mesh, tensors=file.tensors, folder=folder)
        return tuple(pool.map(place, leaves))


def _place(leaf: Leaf, *, mesh: Mesh, tensors: Mapping[str, Tensor], folder: Path) -> Array:
    sharding = named_sharding(mesh, leaf.axes)
    numbers = _numbers(sharding.devices_indices_map(leaf.shape).values(), leaf.shape)
    shape = sharding.shard_shape(leaf.shape)

    def read(index: Index | None) -> np.ndarray:
        name = f"{leaf.paths[0]}@{numbers[_bounds(index or (), leaf.shape)]}"
        tensor = tensors.get(name)
        if tensor is None or (tensor.shape, tensor.dtype) != (shape, np.dtype(leaf.dtype)):
            raise CheckpointError(
                f"{folder / LEAVES} has no sound {name!r}; convert the model again."
            )
        return tensor.read_to_stay()

    return jax.make_array_from_callback(leaf.shape, sharding, read)


def _parts(leaf: Leaf, array: Array) -> dict[int, Any]:
    """The different parts of a leaf by their numbers, each from the first device that has it."""
    shards = array.addressable_shards
    numbers = _numbers((shard.index for shard in shards), leaf.shape)
    found: dict[int, Any] = {}
    for shard in shards:
        found.setdefault(numbers[_bounds(shard.index, leaf.shape)], shard.data)
    return found


def _numbers(indices: Any, shape: tuple[int, ...]) -> dict[tuple[tuple[int, int], ...], int]:
    bounds = sorted({_bounds(index, shape) for index in indices})
    return {each: number for number, each in enumerate(bounds)}


def _bounds(index: Any, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """First and one past the last of each axis."""
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))


def _other(folder: Path, have: str, want: str) -> CheckpointError:
    return CheckpointError(
        f"{folder} was converted for {have}, not for {want}; convert the model again, or use it as "
        "it was published."
    )
