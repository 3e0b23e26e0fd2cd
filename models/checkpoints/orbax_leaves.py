"""The leaves of a converted checkpoint as Orbax keeps them, instead of `ingot.safetensors`.

    ingot.orbax/    a tree {"layers.0.attention.qkv.kernel": array}, an array's chunks being the
                    parts that the devices have: in Zarr 2, in an OCDBT database, not compressed

Orbax writes them, and can restore them; they are read by TensorStore, on which it rests, for that
takes two thirds of the time. Owns what is said to both, and their errors made into ours. When
leaves may be used, and which they are, is said in `converted.py`; trees of others are read by
`orbax_tree.py`. Both packages are optional.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from models.checkpoints.orbax_tree import LEAVES, find_package, first_line
from models.errors import CheckpointError
from models.flatten import Leaf
from models.sharding import named_sharding

_READERS = 4  # leaves read at the same time
_NEEDED = "Leaves in Orbax's format need orbax and tensorstore"
_WITHOUT = ", or convert the model without --save-format orbax"


def find_orbax() -> Any:
    """The package that writes; raises UnsupportedError where it is not installed."""
    return find_package("orbax.checkpoint", _NEEDED, _WITHOUT)


def write_orbax(folder: Path, leaves: tuple[Leaf, ...], arrays: tuple[Array, ...]) -> None:
    """Write every device's part of every leaf.

    Raises:
        UnsupportedError: Orbax is not installed.
        CheckpointError, OSError: it cannot write there.
    """
    orbax = find_orbax()
    tree = {leaf.paths[0]: array for leaf, array in zip(leaves, arrays, strict=True)}
    handler = orbax.PyTreeCheckpointHandler(use_ocdbt=True, use_zarr3=False, use_compression=False)
    path = (folder / LEAVES).absolute()
    try:
        with orbax.Checkpointer(handler) as checkpointer:
            checkpointer.save(path, args=orbax.args.PyTreeSave(tree))
    except OSError:
        raise
    except Exception as error:  # of Orbax, TensorStore and XLA, which raise whatever they like
        raise CheckpointError(f"Orbax cannot write {path}: {first_line(error)}.") from error


def read_orbax(folder: Path, leaves: tuple[Leaf, ...], mesh: Mesh) -> tuple[Array, ...]:
    """Every leaf on its devices, each of which reads its own part.

    Raises:
        CheckpointError: what is there is damaged, or has other leaves.
        UnsupportedError: TensorStore is not installed.
    """
    tensorstore = find_package("tensorstore", _NEEDED, _WITHOUT)
    path = (folder / LEAVES).absolute()
    place = partial(_place, mesh=mesh, path=path)
    try:
        stores = [tensorstore.open(_where(path, leaf), open=True, read=True) for leaf in leaves]
        with ThreadPoolExecutor(_READERS) as pool:
            return tuple(pool.map(place, leaves, stores))
    except CheckpointError:
        raise
    except Exception as error:  # TensorStore has ValueError, and what the disk may raise
        raise CheckpointError(
            f"{path} is damaged, or not whole ({first_line(error)}); convert the model again."
        ) from error


def _where(path: Path, leaf: Leaf) -> dict[str, Any]:
    database = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{path}/"}}
    return {"driver": "zarr", "kvstore": {**database, "path": f"{leaf.paths[0]}/"}}


def _place(leaf: Leaf, store: Any, *, mesh: Mesh, path: Path) -> Array:
    found = store.result()
    if (found.shape, found.dtype.numpy_dtype) != (leaf.shape, np.dtype(leaf.dtype)):
        raise CheckpointError(f"{path} has no sound {leaf.paths[0]!r}; convert the model again.")
    return jax.make_array_from_callback(
        leaf.shape, named_sharding(mesh, leaf.axes), lambda part: found[part].read().result()
    )
