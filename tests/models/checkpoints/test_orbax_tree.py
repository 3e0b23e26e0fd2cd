"""Trees that Orbax wrote load to the bits of the same checkpoint in safetensors, or say why not."""

import json
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from models.checkpoints.convert import convert
from models.checkpoints.loading import load
from models.checkpoints.orbax_tree import is_part
from models.errors import CheckpointError, UnsupportedError
from models.sharding import make_mesh
from tests.models.checkpoints.safetensors_files import write_checkpoint
from tests.models.checkpoints.test_loading import CONFIG, tiny_tensors

orbax = pytest.importorskip("orbax.checkpoint")


def nested(tensors: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in tensors.items():
        *path, leaf = name.split(".")
        place = tree
        for step in path:
            place = place.setdefault(step, {})
        place[leaf] = array
    return tree


def flax(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """As Flax names and turns them."""
    named: dict[str, Any] = {}
    for name, array in tensors.items():
        module = name.removesuffix(".weight")
        if "embed" in name:
            named[f"{module}.embedding.value"] = jnp.asarray(array)
        elif array.ndim == 1:
            named[f"{module}.scale.value"] = jnp.asarray(array)
        else:
            named[f"{module}.kernel.value"] = jnp.asarray(array.T)
    return nested(named)


def trained(tensors: dict[str, Any]) -> dict[str, Any]:
    moments = {"mu": {"x": jnp.ones(3)}}
    return {"params": {"params": nested(tensors)}, "opt_state": [moments], "step": 3}


def save(path: Path, tree: Any, **how: Any) -> None:
    handler = orbax.PyTreeCheckpointHandler(**how)
    with orbax.Checkpointer(handler) as checkpointer:
        checkpointer.save(path, args=orbax.args.PyTreeSave(tree))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIG))
    (made / "tokenizer.json").write_text("{}")
    return made


def leaves(folder: Path, devices: int = 1) -> list[bytes]:
    loaded = load(folder, make_mesh(devices), dtype="float32")
    return [
        np.asarray(part.data).tobytes()
        for leaf in loaded.leaves
        for part in leaf.addressable_shards
    ]


@pytest.mark.parametrize(
    ("where", "make", "how"),
    [
        ("weights", nested, {}),
        ("7/default", trained, {}),
        (".", dict, {"use_ocdbt": False}),
        ("state", flax, {"use_zarr3": True}),
    ],
)
def test_the_same_bits_as_safetensors(folder: Path, where: str, make: Any, how: Any) -> None:
    tensors = tiny_tensors()
    write_checkpoint(folder.parent / "same", CONFIG, tensors)
    save(folder.parent / "saved", make(tensors), **how)
    (folder / where).mkdir(parents=True, exist_ok=True)
    for path in (folder.parent / "saved").iterdir():
        path.rename(folder / where / path.name)
    for devices in (1, 2):
        assert leaves(folder, devices) == leaves(folder.parent / "same", devices)
    out = convert(folder, folder.parent / "out", make_mesh(1), dtype="float32")
    assert {path.name for path in out.iterdir()} == {
        "config.json", "tokenizer.json", "ingot.json", "ingot.safetensors",
    }  # fmt: skip
    assert leaves(out) == leaves(folder)


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load(folder, make_mesh(1))
    message = str(error.value).replace(str(folder), "M")
    assert message.count(". ") == 0 and message.endswith(".") and "\n" not in message
    return message


def test_names_of_another_project_are_shown_with_what_would_work(folder: Path) -> None:
    foreign = {"params": {"decoder": {"norm": {"scale": np.ones(8)}, "wi_0": np.ones((2, 8))}}}
    save(folder / "items", foreign)
    for sentence in ("and none for 'lm_head.weight'", "and there is no M/config.json"):
        message = refused(folder)
        assert message.startswith("M/items was written by Orbax and has 2 arrays, such as 'params.")
        assert sentence in message and "convert others to such a checkpoint" in message
        (folder / "config.json").unlink(missing_ok=True)


def test_two_trees_are_not_chosen_between(folder: Path) -> None:
    for step in "12":
        save(folder / step / "params", {"a": np.ones(3)})
    assert "several trees that Orbax wrote, 1/params and 2/params; leave one" in refused(folder)


@pytest.mark.parametrize("ocdbt", [True, False])
def test_damage_is_one_sentence(folder: Path, ocdbt: bool) -> None:
    save(folder / "weights", tiny_tensors(), use_ocdbt=ocdbt)
    kinds = "d/*" if ocdbt else "lm_head.weight/0.0"
    max((folder / "weights").rglob(kinds), key=lambda path: path.stat().st_size).unlink()
    assert refused(folder).startswith("M/weights is damaged, or not whole (")


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ("[", "is not valid JSON"),
        ("{}", "does not describe a tree"),
        ('{"tree_metadata": {"a": {"key_metadata": 3}}}', "does not describe a tree"),
        ('{"tree_metadata": {"a": {"key_metadata": [{"key": "../b"}], "value_metadata": '
         '{"value_type": "np.ndarray"}}}}', "'../b', whose name is no file's"),
    ],
)  # fmt: skip
def test_what_the_tree_says_of_itself_is_checked(folder: Path, metadata: str, says: str) -> None:
    (folder / "weights").mkdir()
    (folder / "weights" / "_METADATA").write_text(metadata)
    assert says in refused(folder)


def test_files_beside_a_tree_are_not_its_parts(tmp_path: Path) -> None:
    save(tmp_path / "tree", {"a.b": np.ones(3)}, use_ocdbt=False)
    files = {path for path in (tmp_path / "tree").rglob("*") if path.is_file()}
    assert files and all(is_part(path, tmp_path / "tree") for path in files)
    for other in ("tree/tokenizer.json", "tree/templates/tool.jinja", "tokenizer.json"):
        assert not is_part(tmp_path / other, tmp_path / "tree")


def test_tensorstore_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(folder / "weights", tiny_tensors())
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    with pytest.raises(UnsupportedError, match=r"needs tensorstore; run pip .*'ingot\[orbax\]'\.$"):
        load(folder, make_mesh(1))


def test_two_weights_of_one_module_are_not_chosen_between(folder: Path) -> None:
    """A kernel in fewer bits has a scale."""
    save(folder / "weights", {"lm_head": {"kernel": np.ones((2, 3)), "scale": np.ones((1, 3))}})
    assert refused(folder).startswith("M/weights has two arrays that Flax calls weights of 'lm_h")
