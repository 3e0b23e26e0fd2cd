"""A checkpoint folder: which files it must have, and which it may not.

    config.json                    the architecture and its sizes
    generation_config.json         optional: sampling defaults and end-of-sequence ids
    model.safetensors              all weights, or
    model.safetensors.index.json   {"weight_map": {"<tensor>": "<file>"}} and the files it names
    pytorch_model.bin              the same as PyTorch saves it, where there is no safetensors file,
    pytorch_model.bin.index.json   and its index

or, where there are none of these, a tree that Orbax wrote: `orbax_tree.py`.

A GGUF file is a checkpoint by itself: `gguf/` reads it as if it were such a folder.

Owns finding and opening these. Refuses to know what the configuration means (`architectures/`),
and never runs code that a checkpoint brings: `torch_file/` reads pickles as data.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from models.checkpoints.orbax_tree import INSTEAD, METADATA, describe, find_tree, open_tree
from models.checkpoints.safetensors import SafetensorsFile
from models.demo import DEMO_FOLDER
from models.errors import CheckpointError
from models.gguf.checkpoint import (
    is_gguf,
    open_gguf_tensors,
    read_gguf_config,
    read_gguf_generation_config,
)
from models.quantised.tensors import Readable
from models.torch_file.reader import TorchFile

DEMO = "demo"
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TORCH_WEIGHTS = "pytorch_model.bin"
TORCH_INDEX = "pytorch_model.bin.index.json"
READERS: Mapping[str, type[SafetensorsFile] | type[TorchFile]] = {
    ".safetensors": SafetensorsFile,
    ".bin": TorchFile,
}
CONVERTED = "ingot.json"  # what `ingot convert` wrote; read by converted.py alone
PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
MAX_JSON_BYTES = 64 * 1024 * 1024  # the index of a 1,000,000-tensor checkpoint fits


def find_folder(model: str | Path) -> Path:
    """The checkpoint folder or GGUF file called `model`, "demo" being the bundled folder.

    Raises CheckpointError if it is neither.
    """
    folder = DEMO_FOLDER if model == DEMO else Path(model).expanduser()
    if is_gguf(folder):
        return folder
    if folder.is_file():
        raise CheckpointError(
            f"{folder} is a file; give the folder that holds it together with {CONFIG}, or a file "
            f"whose name ends in .gguf."
        )
    if not folder.is_dir():
        raise CheckpointError(
            f"There is no folder {str(model)!r}; give the folder that holds a {CONFIG} and "
            f"{WEIGHTS}, a GGUF file, or a name on the Hugging Face hub, such as Qwen/Qwen3-0.6B."
        )
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json; raises CheckpointError if it is missing or malformed.

    A GGUF file says the same in other words, of which some mean what Ingot does not have: that is
    an UnsupportedError.
    """
    if is_gguf(folder):
        return read_gguf_config(folder)
    path = folder / CONFIG
    if not path.is_file():
        if (tree := find_tree(folder)) is not None:
            raise CheckpointError(f"{described(tree)}, and there is no {path}; {INSTEAD}.")
        files = sorted(folder.glob("*.gguf"))
        instead = files[0] if files else "the folder of a Hugging Face checkpoint"
        raise CheckpointError(f"{folder} has no {CONFIG}; give {instead}.")
    return read_object(path)


def read_generation_config(folder: Path) -> dict[str, Any]:
    """The content of generation_config.json, empty without one; raises CheckpointError."""
    if is_gguf(folder):
        return read_gguf_generation_config(folder)
    path = folder / GENERATION_CONFIG
    return read_object(path) if path.is_file() else {}


@contextmanager
def open_tensors(folder: Path) -> Iterator[Mapping[str, Readable]]:
    """Every tensor of the checkpoint by name, readable inside the `with`.

    Raises CheckpointError if a file is missing or malformed, if two files hold the same tensor, or
    if the index and the files disagree.
    """
    if is_gguf(folder):
        with open_gguf_tensors(folder) as restored:
            yield restored
        return
    if (tree := weights_tree(folder)) is not None:
        yield open_tree(tree, read_object(tree / METADATA))
        return
    tensors: dict[str, Readable] = {}
    index, weight_map, filenames = _weight_files(folder)
    with ExitStack() as files:
        for filename in filenames:
            file = READERS[Path(filename).suffix](folder / filename)
            files.enter_context(file)
            for name, tensor in file.tensors.items():
                if weight_map.get(name, filename) != filename or name in tensors:
                    raise CheckpointError(
                        f"Tensor {name!r} of {folder} is in {filename} and in another file; "
                        f"download the folder again."
                    )
                tensors[name] = tensor
        for name in weight_map.keys() - tensors.keys():
            raise CheckpointError(
                f"{index} says that tensor {name!r} is in {weight_map[name]}, which does not have "
                f"it; download {folder} again."
            )
        yield tensors


def weights_tree(folder: Path) -> Path | None:
    """The tree that has the weights of a folder without files of weights, if one does."""
    files = (INDEX, WEIGHTS, TORCH_INDEX, TORCH_WEIGHTS, CONVERTED)
    return None if any((folder / name).is_file() for name in files) else find_tree(folder)


def described(tree: Path) -> str:
    """The beginning of a sentence about a tree that is not read."""
    return describe(tree, read_object(tree / METADATA))


def _weight_files(folder: Path) -> tuple[str, dict[str, str], list[str]]:
    """The index, what it says (tensor -> file; empty without one), and the files to open."""
    for index, single in ((INDEX, WEIGHTS), (TORCH_INDEX, TORCH_WEIGHTS)):
        if (folder / index).is_file():
            weight_map = read_index(folder / index)
            filenames = sorted(set(weight_map.values()))
            for filename in filenames:
                if not (folder / filename).is_file():
                    raise CheckpointError(
                        f"{folder} lacks {filename}, which {index} names; download that file again."
                    )
            return index, weight_map, filenames
        if (folder / single).is_file():
            return "", {}, [single]
    if (folder / CONVERTED).is_file():
        raise CheckpointError(
            f"{folder} was converted for writing text; for vectors, give the checkpoint that it "
            f"was made from."
        )
    pickled = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if pickled:
        raise CheckpointError(
            f"{folder} has its weights in {pickled[0]}, and of pickles only {TORCH_WEIGHTS} and "
            f"the files of {TORCH_INDEX} are read; convert it with transformers' save_pretrained."
        )
    if files := sorted(folder.glob("*.gguf")):
        raise CheckpointError(
            f"{folder} has its weights in a GGUF file, which is a checkpoint by itself; give "
            f"{files[0]}."
        )
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    found = f" (it has {', '.join(shards[:3])}, which no index names)" if shards else ""
    raise CheckpointError(f"{folder} has neither {WEIGHTS} nor {INDEX}{found}; download it again.")


def read_index(path: Path) -> dict[str, str]:
    """Tensor -> file, of which each lies beside the index; raises CheckpointError."""
    weight_map = read_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path} has no object weight_map; download it again.")
    for name, filename in weight_map.items():
        if not isinstance(filename, str) or Path(filename).name != filename or not filename:
            raise CheckpointError(
                f"{path} puts tensor {name!r} in {filename!r}, which is not the name of a file "
                f"beside it; download it again."
            )
        if Path(filename).suffix not in READERS:
            raise CheckpointError(
                f"{path} puts tensor {name!r} in {filename}; only {' and '.join(READERS)} files "
                f"are loaded, so convert it with transformers' save_pretrained."
            )
    return weight_map


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises CheckpointError."""
    value = _read_json(path)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, not an object.")
    return value


def read_list(path: Path) -> list[Any]:
    """The JSON list in a file; raises CheckpointError."""
    value = _read_json(path)
    if not isinstance(value, list):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, not a list.")
    return value


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(
                f"{path} has over {MAX_JSON_BYTES} bytes, too many for what it should hold; "
                f"download it again."
            )
        return json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); download it again.") from error
