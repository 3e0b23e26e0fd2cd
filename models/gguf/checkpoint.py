"""A GGUF file as a checkpoint: the same questions that a folder in Hugging Face layout answers.

Owns opening the file, or its parts, for each of them. Refuses to know the format (`container/`)
and the keys (`configuration.py`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.config.fields import Fields
from models.gguf import configuration
from models.gguf.container.parts import GGUFModel, open_gguf
from models.gguf.container.reader import GGUFFile
from models.gguf.families.encoders import ENCODERS, NAMES, encoder_tensors
from models.gguf.families.gpt_oss import gathered
from models.gguf.families.registry import FAMILIES
from models.gguf.tensors.names import restored
from models.gguf.tensors.queries import apart
from models.quantised.tensors import Readable


def is_gguf(path: Path) -> bool:
    """Whether `path` is a file that is called one."""
    return path.suffix.lower() == ".gguf" and path.is_file()


def read_gguf_metadata(path: Path) -> Mapping[str, Any]:
    """All keys: numbers, strings, lists of strings, NumPy arrays; raises CheckpointError."""
    with GGUFFile(path) as file:
        return file.metadata


def read_gguf_config(path: Path) -> dict[str, Any]:
    """What config.json would say; raises CheckpointError and UnsupportedError."""
    with open_gguf(path) as file:
        _, _, tensors = _opened(file, path)
        return configuration.config(file.metadata, tensors, str(path))


def read_gguf_generation_config(path: Path) -> dict[str, Any]:
    """What generation_config.json would say; raises CheckpointError."""
    return configuration.generation_config(read_gguf_metadata(path), str(path))


@contextmanager
def open_gguf_tensors(path: Path) -> Iterator[Mapping[str, Readable]]:
    """Every tensor under the name that it has in the Hugging Face checkpoint, and as it is there.

    Raises CheckpointError and UnsupportedError.
    """
    with open_gguf(path) as file:
        name, fields, found = _opened(file, path)
        if name in ENCODERS:
            yield encoder_tensors(name, found)
            return
        tensors = restored(found, FAMILIES[name], fields)
        yield gathered(tensors) if name == "gpt-oss" else tensors


def _opened(file: GGUFModel, path: Path) -> tuple[str, Fields, Mapping[str, Readable]]:
    """The architecture, its keys, and the tensors, queries, keys and values apart."""
    name = configuration.family(file.metadata, str(path))
    fields = configuration.section(file.metadata, name, str(path))
    names = NAMES.get(name, {}) if name in ENCODERS else FAMILIES[name].names
    return name, fields, apart(file.tensors, names, fields)
