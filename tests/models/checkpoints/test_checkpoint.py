"""A checkpoint folder: what is found, and the sentence for each thing that is wrong with it."""

import json
from pathlib import Path

import numpy as np
import pytest

from models.checkpoints.checkpoint import (
    find_folder,
    open_tensors,
    read_config,
    read_generation_config,
)
from models.errors import CheckpointError
from tests.models.checkpoints.safetensors_files import write_safetensors
from tests.models.torch_file.torch_files import write_torch_file

ONE = np.ones((2, 3), np.float32)


def write_index(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def names(folder: Path) -> set[str]:
    with open_tensors(folder) as tensors:
        return set(tensors)


def test_a_single_file_is_opened(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", {"a": ONE, "b": ONE})
    assert names(tmp_path) == {"a", "b"}


def test_files_named_by_an_index_are_opened(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "one.safetensors", {"a": ONE})
    write_safetensors(tmp_path / "two.safetensors", {"b": 2 * ONE})
    write_index(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    with open_tensors(tmp_path) as tensors:
        np.testing.assert_array_equal(tensors["b"].read(), 2 * ONE)


def test_files_of_pytorch_are_opened_where_there_are_no_others(tmp_path: Path) -> None:
    write_torch_file(tmp_path / "pytorch_model-1.bin", {"a": ONE})
    write_torch_file(tmp_path / "pytorch_model-2.bin", {"b": 2 * ONE})
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(
        json.dumps({"weight_map": {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}})
    )
    with open_tensors(tmp_path) as tensors:
        np.testing.assert_array_equal(tensors["b"].read(1), 2 * ONE[1:])
    (tmp_path / "pytorch_model-2.bin").unlink()
    with pytest.raises(CheckpointError, match=r"lacks pytorch_model-2.bin, which pytorch_model\.b"):
        names(tmp_path)
    write_safetensors(tmp_path / "model.safetensors", {"c": ONE})
    assert names(tmp_path) == {"c"}


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (None, "no object weight_map"),
        ({"a": 3}, "'a' in 3, which is not the name"),
        ({"a": "../one.safetensors"}, "not the name of a file"),
        ({"a": "model.pt"}, "only .safetensors and .bin files are loaded"),
        ({"a": "one.safetensors", "b": "two.safetensors"}, "lacks two.safetensors, which"),
        ({"a": "one.safetensors", "c": "one.safetensors"}, "'c' is in one.safetensors, which does"),
    ],
)
def test_a_wrong_index_is_refused(tmp_path: Path, weight_map: object, message: str) -> None:
    write_safetensors(tmp_path / "one.safetensors", {"a": ONE})
    write_index(tmp_path, weight_map)
    with pytest.raises(CheckpointError, match=message):
        names(tmp_path)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "one.safetensors", {"a": ONE})
    write_safetensors(tmp_path / "two.safetensors", {"a": ONE, "b": ONE})
    write_index(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    with pytest.raises(CheckpointError, match=r"'a' of .* is in two.safetensors and in another"):
        names(tmp_path)


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ("consolidated.00.pth", "in consolidated.00.pth, and of pickles only pytorch_model.bin"),
        ("model-00001-of-00002.safetensors", "it has model-00001-of-00002.safetensors, which no"),
        ("config.json", "neither model.safetensors nor"),
    ],
)
def test_a_folder_without_weights_is_refused(tmp_path: Path, present: str, message: str) -> None:
    (tmp_path / present).touch()
    with pytest.raises(CheckpointError, match=message):
        names(tmp_path)


def test_only_folders_are_loaded(tmp_path: Path) -> None:
    assert find_folder(str(tmp_path)) == tmp_path
    with pytest.raises(CheckpointError, match=r"no folder 'meta-llama/Llama-3.2-1B'; give the"):
        find_folder("meta-llama/Llama-3.2-1B")
    (tmp_path / "model.bin").touch()
    with pytest.raises(CheckpointError, match=r"is a file; give the folder"):
        find_folder(tmp_path / "model.bin")
    (tmp_path / "model.gguf").touch()
    assert find_folder(tmp_path / "model.gguf") == tmp_path / "model.gguf"


def test_configurations_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert read_config(tmp_path) == {"model_type": "llama"}
    assert read_generation_config(tmp_path) == {}
    (tmp_path / "generation_config.json").write_text('{"top_k": 20}')
    assert read_generation_config(tmp_path) == {"top_k": 20}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a": 1' + b"0" * 9000])
def test_a_malformed_configuration_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is not valid JSON"):
        read_config(tmp_path)


def test_a_configuration_must_be_an_object(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"holds a list, not an object"):
        read_config(tmp_path)


def test_what_a_clone_without_lfs_leaves_is_named(tmp_path):
    (tmp_path / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    )
    with pytest.raises(CheckpointError, match="git lfs pull"), open_tensors(tmp_path):
        pass


def test_a_folder_that_holds_a_gguf_file_says_to_give_that(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=r"give .*/model.gguf"), open_tensors(tmp_path):
        pass
    with pytest.raises(CheckpointError, match=r"has no config.json; give .*/model.gguf"):
        read_config(tmp_path)
