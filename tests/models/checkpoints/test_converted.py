"""A converted checkpoint loads to the same bits, and only where it was made for."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from models.checkpoints.checkpoint import open_tensors
from models.checkpoints.convert import convert
from models.checkpoints.loading import load
from models.errors import CheckpointError, UnsupportedError
from models.sharding import make_mesh
from tests.models.checkpoints.safetensors_files import write_checkpoint
from tests.models.checkpoints.test_loading import CONFIG, tiny_tensors

ORBAX = {"save_format": "orbax"}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    write_checkpoint(folder, CONFIG, tiny_tensors())
    (folder / "templates").mkdir()
    (folder / "templates" / "tool.jinja").write_text("a template")
    (folder / "tokenizer.model").write_bytes(b"\1\2")
    (folder / "modeling.py").write_text("code")
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "secret").write_text("no")
    return folder


def made(tiny: Path, devices: int = 1, **options) -> Path:
    return convert(tiny, tiny.parent / "made", make_mesh(devices), **options)


@pytest.mark.parametrize(
    ("devices", "options", "how"),
    [
        (1, {}, {}), (2, {}, {}), (4, {}, {}), (1, {"dtype": "bfloat16"}, {}),
        (2, {"quantization": "int8"}, {}), (4, {}, ORBAX),
        (2, {"quantization": "int8", "dtype": "bfloat16"}, ORBAX),
    ],
)  # fmt: skip
def test_the_same_bits_on_the_same_devices(tiny, devices, options, how):
    if len(jax.devices()) < devices:
        pytest.skip(f"needs {devices} devices")
    folder, mesh = made(tiny, devices, **options, **how), make_mesh(devices)
    assert (folder / "ingot.orbax").is_dir() != (folder / "ingot.safetensors").is_file()
    before, after = load(tiny, mesh, **options), load(folder, mesh)
    assert before.layout.leaves == after.layout.leaves
    for old, new in zip(before.leaves, after.leaves, strict=True):
        assert (old.sharding, old.dtype) == (new.sharding, new.dtype)
        for a, b in zip(old.addressable_shards, new.addressable_shards, strict=True):
            assert np.asarray(a.data).tobytes() == np.asarray(b.data).tobytes()
    assert (after.quantization, after.num_parameters, after.dtype) == (
        before.quantization, before.num_parameters, before.dtype,
    )  # fmt: skip


@pytest.mark.parametrize("last", ["write_leaves", "write_made"])
def test_a_full_disk_is_an_error(tiny, monkeypatch, last):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"models.checkpoints.convert.{last}", full)
    with pytest.raises(CheckpointError, match=r"Cannot write .*made: No space left on device"):
        made(tiny)


def test_everything_but_weights_and_code_is_carried_over(tiny):
    folder = made(tiny)
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "config.json", "ingot.json", "ingot.safetensors", "tokenizer.model", "templates/tool.jinja",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("devices", "options", "message"),
    [
        (2, {}, "converted for --tensor-parallel-size 1, not for --tensor-parallel-size 2"),
        (1, {"dtype": "bfloat16"}, "for --dtype float32, not for --dtype bfloat16"),
        (1, {"quantization": "int8"}, "for no quantisation, not for --quantization int8"),
    ],
)
def test_another_use_is_refused(tiny, devices, options, message):
    folder = made(tiny)
    with pytest.raises(CheckpointError, match=message):
        load(folder, make_mesh(devices), **options)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("ingot.json", '{"dtype": "float32"}', "was not written by `ingot convert`"),
        ("ingot.json", None, "was not written by `ingot convert`"),  # a number where a name was
        ("config.json", json.dumps(CONFIG | {"num_key_value_heads": 2}), "lays out its weights in"),
        ("ingot.safetensors", "short", "is not a sound safetensors file"),
    ],
)
def test_what_was_changed_since_is_noticed(tiny, file, content, message):
    folder = made(tiny)
    if content is None:
        content = json.dumps(json.loads((folder / file).read_text()) | {"layout": 3})
    (folder / file).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load(folder, make_mesh(1))


def test_a_leaf_of_another_shape_is_named(tiny):
    folder = made(tiny)
    path = folder / "ingot.safetensors"
    path.write_bytes(path.read_bytes().replace(b"embedding@0", b"embedding@7"))
    with pytest.raises(CheckpointError, match="no sound 'embedding@0'"):
        load(folder, make_mesh(1))


def test_what_cannot_be_converted_says_why(tiny, tmp_path):
    mesh, folder = make_mesh(1), made(tiny)
    with pytest.raises(CheckpointError, match="is not empty"):
        convert(tiny, folder, mesh)
    with pytest.raises(CheckpointError, match="is converted already"):
        convert(folder, tmp_path / "again", mesh)
    with pytest.raises(CheckpointError, match="Cannot write"):
        convert(tiny, tiny / "config.json" / "out", mesh)
    with pytest.raises(CheckpointError, match="for vectors, give"), open_tensors(folder):
        pass
    quantised = CONFIG | {
        "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 8}
    }
    (tiny / "config.json").write_text(json.dumps(quantised))
    with pytest.raises(UnsupportedError, match="needs no conversion"):
        convert(tiny, tmp_path / "other", mesh)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(UnsupportedError, match="GGUF file is not converted"):
        convert(tmp_path / "m.gguf", tmp_path / "other", mesh)
    (tiny / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(UnsupportedError, match="int3"):
        convert(tiny, tmp_path / "other", mesh, dtype="int3")
    assert not (tmp_path / "other").exists(), "nothing is left of it"


@pytest.mark.parametrize("damage", ["lost", "cut", "changed"])
def test_damage_to_what_orbax_keeps_is_one_sentence(tiny, damage, capfd):
    folder = made(tiny, **ORBAX)
    largest = max((folder / "ingot.orbax").rglob("d/*"), key=lambda path: path.stat().st_size)
    data = largest.read_bytes()
    if damage == "lost":
        largest.unlink()
    else:
        largest.write_bytes(data[: len(data) // 2] if damage == "cut" else bytes(len(data)))
    capfd.readouterr()
    with pytest.raises(CheckpointError, match=r"ingot\.orbax is damaged, or not whole .*again\.$"):
        load(folder, make_mesh(1))
    assert capfd.readouterr() == ("", "")


def test_orbax_itself_restores_what_is_written(tiny):
    orbax = pytest.importorskip("orbax.checkpoint")
    folder, loaded = made(tiny, **ORBAX), load(tiny, make_mesh(1))
    plain = orbax.RestoreArgs(restore_type=np.ndarray)
    how = {leaf.paths[0]: plain for leaf in loaded.layout.leaves}
    with orbax.PyTreeCheckpointer() as checkpointer:
        tree = checkpointer.restore(folder / "ingot.orbax", restore_args=how)
    for leaf, array in zip(loaded.layout.leaves, loaded.leaves, strict=True):
        np.testing.assert_array_equal(tree.pop(leaf.paths[0]), array)
    assert not tree


def test_orbax_is_asked_for_where_it_is_needed(tiny, tmp_path, monkeypatch):
    folder = made(tiny, **ORBAX)
    for name in ("orbax.checkpoint", "tensorstore"):
        monkeypatch.setitem(sys.modules, name, None)
    for use in (
        lambda: load(folder, make_mesh(1)),
        lambda: convert(tiny, tmp_path / "again", make_mesh(1), **ORBAX),
    ):
        with pytest.raises(UnsupportedError, match=r"pip install 'ingot\[orbax\]'"):
            use()
    assert not (tmp_path / "again").exists()
    with pytest.raises(UnsupportedError, match="no --save-format 'zarr'; use safetensors or orbax"):
        convert(tiny, tmp_path / "again", make_mesh(1), save_format="zarr")
