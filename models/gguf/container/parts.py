"""A model in several GGUF files, as `llama-gguf-split` makes them, as if it were one.

    big-00001-of-00003.gguf   all keys, and some of the tensors; this one is given
    big-00002-of-00003.gguf   split.no = 1, split.count = 3, and others

Owns finding the parts and checking that they belong together. What is in one is `reader.py`'s.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.config.fields import Fields
from models.errors import CheckpointError
from models.gguf.container.reader import GGUFFile
from models.quantised.tensors import Readable

NAME = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
MAX_PARTS = 1000


@dataclass(frozen=True)
class GGUFModel:
    """The keys of the first file, and the tensors of all."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, Readable]


@contextmanager
def open_gguf(path: Path) -> Iterator[GGUFModel]:
    """Open `path` and the parts that belong to it; tensors can be read inside the `with`.

    Raises CheckpointError if a part is missing, malformed or of another model.
    """
    with ExitStack() as files:
        first = files.enter_context(GGUFFile(path))
        count, tensors = _number(first, "split.count"), dict(first.tensors)
        if count > 1:
            for number, part in enumerate(_others(first, count), 1):
                _add(tensors, files.enter_context(GGUFFile(part)), number, count)
            _check_total(first, len(tensors))
        yield GGUFModel(first.metadata, tensors)


def _number(file: GGUFFile, key: str) -> int:
    return Fields(file.metadata, str(file.path)).integer(key, 0, low=0)


def _others(first: GGUFFile, count: int) -> list[Path]:
    """The files behind the first, in order."""
    path = first.path
    match = NAME.fullmatch(path.name)
    if count > MAX_PARTS or match is None or int(match["count"]) != count:
        raise CheckpointError(
            f"{path} is one of {count} files of a model, and its name does not say so; call them "
            f"NAME-00001-of-{count:05}.gguf and so on."
        )
    names = [f"{match['stem']}-{one:05}-of-{count:05}.gguf" for one in range(1, count + 1)]
    if _number(first, "split.no") != 0 or path.name != names[0]:
        raise CheckpointError(
            f"{path} is not the first of the {count} files of its model; give "
            f"{path.with_name(names[0])}."
        )
    missing = [name for name in names if not path.with_name(name).is_file()]
    if missing:
        raise CheckpointError(
            f"{path.parent} lacks {missing[0]}, one of the {count} files of the model that "
            f"begins with {path.name}; download it as well."
        )
    return [path.with_name(name) for name in names[1:]]


def _add(tensors: dict[str, Readable], part: GGUFFile, number: int, count: int) -> None:
    said = _number(part, "split.no"), _number(part, "split.count")
    if said != (number, count):
        raise CheckpointError(
            f"{part.path} says that it is part {said[0] + 1} of {said[1]} and is called part "
            f"{number + 1} of {count}; download it again."
        )
    for name, tensor in part.tensors.items():
        if name in tensors:
            raise CheckpointError(
                f"Tensor {name!r} is in {part.path} and in a part before it; download both again."
            )
        tensors[name] = tensor


def _check_total(first: GGUFFile, found: int) -> None:
    total = _number(first, "split.tensors.count")
    if total != found:
        raise CheckpointError(
            f"{first.path} says that its model has {total} tensors, and its files have {found}; "
            f"download them again."
        )
