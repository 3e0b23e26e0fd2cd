"""A tree of arrays that Orbax wrote, as a checkpoint: its weights beside a config.json.

    config.json
    params/ _METADATA    {"tree_metadata": {"('params', 'model', ..)": {"key_metadata": [{"key": ..
            d/ ...       the arrays, in Zarr, mostly in an OCDBT database

The tree is the folder itself, or lies one or two folders below, as a `CheckpointManager` puts it.
Its names, joined by dots, are those of Hugging Face's tensors; what Flax calls otherwise is known:
`params` in front, `value` behind, and a `kernel`, [in, out], an `embedding` or a `scale` for a
weight. Owns this and what is said to TensorStore. Runs nothing that a tree says; refuses to know
which tensors a model needs. What `ingot convert` writes is `orbax_leaves.py`'s.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from os.path import isfile
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import CheckpointError, UnsupportedError
from models.quantised.tensors import Computed, Readable

LEAVES = "ingot.orbax"  # what `ingot convert` wrote; read by orbax_leaves.py alone
METADATA, DATABASE = "_METADATA", "manifest.ocdbt"
INSTEAD = (
    "Ingot reads trees whose names, joined by dots, are those of a Hugging Face checkpoint, beside "
    "its config.json; convert others to such a checkpoint with the project that wrote them"
)
_OWN = ("_", "commit_success", "array_metadatas", "ocdbt.process_", DATABASE)
_ARRAYS = ("jax.Array", "np.ndarray")
_WEIGHTS = ("kernel", "embedding", "scale")  # Flax's names for a weight
_CHUNKS = 4  # in memory at a time, each of which is read once


def find_tree(folder: Path) -> Path | None:
    """Where in this folder a tree lies; raises CheckpointError if there are several."""
    places = [folder, *sorted(folder.glob("*")), *sorted(folder.glob("*/*"))]
    found = [
        place
        for place in places
        if LEAVES not in place.parts and any(isfile(place / n) for n in (METADATA, DATABASE))
    ]
    tops = [place for place in found if not any(other in place.parents for other in found)]
    if len(tops) > 1:
        names = " and ".join(str(place.relative_to(folder)) for place in tops[:2])
        raise CheckpointError(
            f"{folder} has several trees that Orbax wrote, {names}; leave one of them, with the "
            f"config.json, in a folder of its own."
        )
    return tops[0] if tops else None


def is_part(path: Path, tree: Path) -> bool:
    """Whether a file is one of the tree's, and not one that lies beside them."""
    if not path.is_relative_to(tree):
        return False
    first = next(iter(path.relative_to(tree).parts), "")
    zarr = any((tree / first / name).is_file() for name in (".zarray", "zarr.json"))
    return first == "d" or first.startswith(_OWN) or zarr


def describe(tree: Path, metadata: Mapping[str, Any]) -> str:
    """The beginning of a sentence about a tree that is not read."""
    names = sorted(_keys(tree, metadata), key=".".join)
    such = f", such as {'.'.join(names[0])[:80]!r}" if names else ""
    return f"{tree} was written by Orbax and has {len(names)} arrays{such}"


def open_tree(tree: Path, metadata: Mapping[str, Any]) -> dict[str, Readable]:
    """Every array of the tree, under the name of a Hugging Face tensor if it has one.

    Raises:
        CheckpointError: it is damaged, or not Orbax's.
        UnsupportedError: TensorStore is not installed.
    """
    tensorstore = find_package("tensorstore", "A tree that Orbax wrote needs tensorstore")
    keys = _keys(tree, metadata)
    specs = {names: _where(tree, ".".join(key), metadata) for names, key in _named(keys).items()}
    try:
        found = _open(tensorstore, specs)
        limit = _CHUNKS * max(map(_chunk_bytes, found.values()), default=0)
        context = tensorstore.Context({"cache_pool": {"total_bytes_limit": limit}})
        known = {name: one.spec() for name, one in found.items()}  # which need not be read again
        tensors = _open(tensorstore, known, context=context, assume_metadata=True)
    except Exception as error:  # TensorStore has ValueError, and what the disk may raise
        raise _damaged(tree, error) from error
    held: dict[str, Readable] = {}
    for name, store in tensors.items():
        module, _, leaf = name.rpartition(".")
        weight = f"{module}.weight"
        if leaf in _WEIGHTS and weight not in tensors and store.rank <= 2:
            name, store = weight, store.T if leaf == "kernel" else store
        if name in held:
            raise CheckpointError(
                f"{tree} has two arrays that Flax calls weights of {module!r}; {INSTEAD}."
            )
        held[name] = OrbaxTensor(name, store, tree)
    return held


@dataclass(frozen=True)
class OrbaxTensor(Computed):
    """An array of a tree, or a part of one, which TensorStore reads when it is asked for."""

    name: str
    store: Any
    tree: Path

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        dtype: np.dtype = self.store.dtype.numpy_dtype
        return dtype

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return tuple(self.store.shape)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Indices `start` to `stop` of the first axis; raises CheckpointError."""
        try:
            rows: np.ndarray = (
                (self.store[start:stop] if self.shape else self.store).read().result()
            )
        except Exception as error:  # as above
            raise _damaged(self.tree, error) from error
        return rows

    def entry(self, index: int) -> Readable:
        """One index of the first axis, as a tensor of its own."""
        return replace(self, store=self.store[index])


def _keys(tree: Path, metadata: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The path to each array."""
    try:
        return [
            tuple(str(step["key"]) for step in leaf["key_metadata"])
            for leaf in metadata["tree_metadata"].values()
            if leaf["value_metadata"]["value_type"] in _ARRAYS
        ]
    except (KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{tree / METADATA} does not describe a tree as Orbax does; save it again with a "
            "newer Orbax."
        ) from None


def _named(keys: list[tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The same by their names; of what was saved for training the parameters only."""
    named = {key: key for key in keys}
    while any(key[:1] == ("params",) for key in named):
        named = {key[1:]: whole for key, whole in named.items() if key[:1] == ("params",)}
    if all(key[-1:] == ("value",) for key in named):
        named = {key[:-1]: whole for key, whole in named.items()}
    return {".".join(key): whole for key, whole in named.items()}


def _where(tree: Path, name: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    if "/" in name:
        raise CheckpointError(f"{tree} has an array {name[:80]!r}, whose name is no file's.")
    place: dict[str, Any] = {"driver": "file", "path": f"{tree.absolute()}/{name}/"}
    if (tree / DATABASE).is_file():
        base = {"driver": "file", "path": f"{tree.absolute()}/"}
        place = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
    # Orbax says whether it wrote zeros as well: then what is not there is lost
    whole = metadata.get("store_array_data_equal_to_fill_value") is True
    return {
        "driver": "zarr3" if metadata.get("use_zarr3") is True else "zarr",
        "kvstore": place,
        "fill_missing_data_reads": not whole,
        "recheck_cached_data": False,
    }


def _open(tensorstore: Any, specs: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """All at a time."""
    started = {
        name: tensorstore.open(spec, open=True, read=True, **options)
        for name, spec in specs.items()
    }
    return {name: one.result() for name, one in started.items()}


def _chunk_bytes(store: Any) -> int:
    size: int = prod(store.chunk_layout.read_chunk.shape) * store.dtype.numpy_dtype.itemsize
    return size


def find_package(name: str, needed: str, without: str = "") -> Any:
    """An optional package; raises UnsupportedError, which says what needs it, where it is not."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UnsupportedError(f"{needed}; run pip install 'ingot[orbax]'{without}.") from None


def first_line(error: Exception) -> str:
    """What an error says, without the specification that TensorStore adds."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line.partition(" [")[0][:200]


def _damaged(tree: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{tree} is damaged, or not whole ({first_line(error)}); save it again.")
