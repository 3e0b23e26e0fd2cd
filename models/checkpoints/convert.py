"""`ingot convert`: a checkpoint once more, in the layout in which its weights lie on the devices.

Owns which files are carried over. What is written of the weights is `converted.py`'s.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from jax.sharding import Mesh

from models.checkpoints.checkpoint import CONVERTED, PICKLED, find_folder, read_config, weights_tree
from models.checkpoints.converted import Made, layout_digest, write_leaves, write_made
from models.checkpoints.loading import load
from models.checkpoints.orbax_leaves import find_orbax, write_orbax
from models.checkpoints.orbax_tree import is_part
from models.errors import CheckpointError, UnsupportedError
from models.gguf.checkpoint import is_gguf
from models.quantised.methods import quantisation_method
from models.registry import find_architecture

SAVE_FORMATS = ("safetensors", "orbax")
WEIGHTS = (*PICKLED, "*.safetensors", "*.index.json", "*.gguf", "*.onnx", "*.h5", "*.msgpack")


def convert(
    model: str | Path,
    out: Path,
    mesh: Mesh,
    *,
    dtype: str = "auto",
    quantization: str | None = None,
    save_format: str = "safetensors",
) -> Path:
    """Load `model` as it would be run, and write that to the folder `out`, which must be empty.

    Args:
        save_format: "orbax" needs the extra of that name, and starts slower; other programs of JAX
            read it.

    Raises:
        ModelError: the model cannot be loaded.
        CheckpointError: `out` holds something, or cannot be written.
        UnsupportedError: the checkpoint is quantised, or no folder, and gains nothing from this;
            or the package that `save_format` needs is not installed.
    """
    if save_format not in SAVE_FORMATS:
        raise UnsupportedError(
            f"There is no --save-format {save_format[:40]!r}; use {' or '.join(SAVE_FORMATS)}."
        )
    if save_format == "orbax":
        find_orbax()
    folder = find_folder(model)
    if is_gguf(folder):
        raise UnsupportedError("A GGUF file is not converted: give the folder of a checkpoint.")
    raw = read_config(folder)
    if (method := quantisation_method(raw)) is not None:
        raise UnsupportedError(
            f"The checkpoint is quantised ({method.name}) and already lies as it is used; it needs "
            "no conversion."
        )
    if (folder / CONVERTED).is_file():
        raise CheckpointError(f"{folder} is converted already; give what it was made from.")
    try:
        with _new_folder(out):
            loaded = load(folder, mesh, dtype=dtype, quantization=quantization)
        for path in _carried(folder, out):
            target = out / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        leaves = loaded.layout.leaves
        write = write_orbax if save_format == "orbax" else write_leaves
        write(out, leaves, loaded.leaves)
        sources = find_architecture(raw).weights(loaded.config).sources
        platform = mesh.devices.flat[0].platform
        digest = layout_digest(leaves, sources)
        write_made(out, Made(loaded.dtype, quantization, mesh.size, platform, digest))
    except OSError as error:
        raise CheckpointError(f"Cannot write {out}: {error.strerror}.") from error
    return out


@contextmanager
def _new_folder(out: Path) -> Iterator[None]:
    """Make the folder, unless it is there and empty; an error inside leaves none behind."""
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise CheckpointError(f"{out} is not empty; give a folder that is, or a new one.")
    try:
        yield
    except BaseException:
        if is_new:
            out.rmdir()
        raise


def _carried(folder: Path, out: Path) -> Iterator[Path]:
    """Every file but weights, code, which nothing here runs, hidden ones and what was written."""
    tree = weights_tree(folder)
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        weights = any(fnmatchcase(path.name, pattern) for pattern in WEIGHTS)
        weights = weights or (tree is not None and is_part(path, tree))
        unused = hidden or weights or path.suffix == ".py"
        if path.is_file() and not unused and not path.is_relative_to(out):
            yield path
