"""Matrices in float32 on one CPU have the inputs of an output side by side, none is rounded."""

import numpy as np
import pytest

from models.checkpoints.convert import convert
from models.checkpoints.loading import LoadedModel, load
from models.quantised import choosing
from models.sharding import make_mesh
from tests.models.quantised import small_llama as small


@pytest.fixture(autouse=True)
def any_size(monkeypatch):
    monkeypatch.setattr(choosing, "_LARGE", 0)


def turned(model: LoadedModel) -> set[str]:
    paths = {path for leaf in model.layout.leaves for path in leaf.paths}
    return {path.removesuffix(".kernel.numbers") for path in paths if path.endswith("numbers")}


def test_every_linear_map_is_turned_and_none_is_rounded(folder, monkeypatch):
    model = small.loaded(folder)
    assert {"head", "layers.0.mlp.down", "layers.1.attention.qkv"} <= turned(model)
    assert small.distance(small.logits(model), small.reference(small.tensors())) < 1e-5
    monkeypatch.setattr(choosing, "_LARGE", 2**18)
    assert model.num_parameters == small.loaded(folder).num_parameters


def test_small_ones_other_dtypes_and_several_devices_keep_theirs(folder, monkeypatch):
    assert not turned(small.loaded(folder, 2))
    assert not turned(load(folder, make_mesh(1), dtype="bfloat16"))
    monkeypatch.setattr(choosing, "_LARGE", 2**18)
    assert not turned(small.loaded(folder))


def test_converted_they_stay_as_they_are(folder, tmp_path):
    made = convert(folder, tmp_path / "made", make_mesh(1), dtype="float32")
    plain, again = small.loaded(folder), load(made, make_mesh(1))
    assert turned(again) == turned(plain)
    for one, other in zip(plain.leaves, again.leaves, strict=True):
        np.testing.assert_array_equal(one, other)


def test_random_ones_are_of_one_size_whichever_way_they_lie(folder):
    model = load(folder, make_mesh(1), dtype="float32", load_format="dummy")
    leaf = next(
        array
        for leaf, array in zip(model.layout.leaves, model.leaves, strict=True)
        if leaf.paths[0] == "layers.0.mlp.down.kernel.numbers"
    )
    outputs, inputs = leaf.shape
    assert outputs < inputs and np.std(leaf) == pytest.approx(inputs**-0.5, rel=0.05)
