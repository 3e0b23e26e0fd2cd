"""A model in several GGUF files: as one, and the sentence for what is wrong with them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from models.checkpoints.checkpoint import open_tensors, read_config
from models.checkpoints.loading import load
from models.errors import CheckpointError
from models.sharding import make_mesh
from tests.models.gguf.files import converted, gguf, metadata, write_gguf
from tests.parity.cases import CASES
from tests.parity.goldens import read
from tests.parity.weights import tensor


def write_parts(folder: Path, stem: str = "big", total: int | None = None,
                parts: Mapping[int, int] | None = None) -> list[Path]:  # fmt: skip
    """The case llama3 in three files; `parts` changes what a part says of its number."""
    case, golden = CASES["llama3"], read("llama3")
    tensors = {n: tensor(case.seed, n, s, case.spread) for n, s in golden.tensors}
    theirs = converted("llama", case.config, tensors)
    names = list(theirs)
    paths = []
    for part in range(3):
        keys = metadata("llama", case.config) if part == 0 else {}
        keys["split.no"] = (parts or {}).get(part, part)
        keys["split.count"] = 3
        keys["split.tensors.count"] = len(names) if total is None else total
        path = folder / f"{stem}-{part + 1:05}-of-00003.gguf"
        write_gguf(path, "llama", keys, {name: theirs[name] for name in names[part::3]})
        paths.append(path)
    return paths


def test_parts_are_one_model(tmp_path: Path) -> None:
    assert gguf
    first, *_ = write_parts(tmp_path)
    case = CASES["llama3"]
    whole = write_gguf(
        tmp_path / "whole.gguf", "llama", metadata("llama", case.config),
        converted("llama", case.config, {
            n: tensor(case.seed, n, s, case.spread) for n, s in read("llama3").tensors
        }),
    )  # fmt: skip
    found, expected = (load(path, make_mesh(1), dtype="float32") for path in (first, whole))
    assert found.config == expected.config
    for ours, theirs in zip(found.leaves, expected.leaves, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def fails(path: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message), open_tensors(path):
        pass
    with pytest.raises(CheckpointError, match=message):
        read_config(path)


def test_the_first_part_is_the_one_to_give(tmp_path: Path) -> None:
    _, second, _ = write_parts(tmp_path)
    fails(second, r"is not the first of the 3 files of its model; give .*big-00001-of-00003\.gguf")


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    first, _, third = write_parts(tmp_path)
    third.unlink()
    fails(first, r"lacks big-00003-of-00003\.gguf, one of the 3 files")


def test_a_part_under_another_name_is_an_error(tmp_path: Path) -> None:
    first, *_ = write_parts(tmp_path)
    fails(first.rename(tmp_path / "big.gguf"), "its name does not say so; call them NAME-00001-of-")


def test_parts_must_be_of_one_model(tmp_path: Path) -> None:
    first, second, _ = write_parts(tmp_path, parts={1: 2})
    fails(first, r"big-00002-of-00003\.gguf says that it is part 3 of 3 and is called part 2 of 3")
    write_parts(tmp_path, total=99)
    fails(first, r"says that its model has 99 tensors, and its files have \d+;")
    write_parts(tmp_path)
    second.write_bytes(b"GGUF")
    fails(first, r"big-00002-of-00003\.gguf is not a GGUF file to read")


def test_a_tensor_in_two_parts_is_an_error(tmp_path: Path) -> None:
    first, second, _ = write_parts(tmp_path)
    keys = {"split.no": 1, "split.count": 3, "split.tensors.count": 3}
    write_gguf(second, "llama", keys, {"token_embd.weight": np.zeros((2, 2), np.float32)})
    fails(first, r"'token_embd.weight' is in .*00002-of-00003\.gguf and in a part before it")
