"""Experts in few bits: packed on the devices, and the model that their numbers stand for."""

import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.checkpoints.loading import load
from models.errors import UnsupportedError
from models.layers.attention import decode_batch
from models.quantised import choosing
from models.quantised.experts import ExpertsKernel
from models.sharding import make_mesh
from pallas_kernels.moe import dequantize
from tests.models.checkpoints.safetensors_files import write_checkpoint
from tests.models.quantised import packers
from tests.models.quantised.packers import Packed
from tests.parity.cases import CASES
from tests.parity.goldens import read
from tests.parity.weights import tensor

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
SIZES = {40: 64, 56: 128, 112: 256}  # of the recorded cases, and such as packed experts take


def checkpoint(name: str, layers: int = 2) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A case's configuration and tensors in other sizes."""
    case = CASES[name]
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": layers}
    shapes = {
        name: tuple(SIZES.get(size, size) for size in shape)
        for name, shape in read(name).tensors
        if "layers." not in name or int(name.split(".")[2]) < layers
    }
    plain = {name: tensor(0, name, shape, case.spread) for name, shape in shapes.items()}
    config = {**case.config, **sizes}
    config.pop("layer_types", None)
    return config, plain


def mxfp4(matrix: np.ndarray) -> Packed:
    """[in, out] -> blocks and scales, whose blocks lie along the inputs."""
    groups = matrix.T.reshape(matrix.shape[1], -1, 32).astype(np.float64)
    exponent = np.floor(np.log2(np.abs(groups).max(-1, keepdims=True) / 6)) + 1
    codes = np.abs(groups[..., None] / 2.0 ** exponent[..., None] - E2M1).argmin(-1)
    blocks = (codes[..., 0::2] | codes[..., 1::2] << 4).astype(np.uint8)
    meant = (E2M1[codes] * 2.0**exponent).reshape(matrix.shape[1], -1).T
    scales = (exponent[..., 0] + 127).astype(np.uint8)
    return Packed({"blocks": blocks, "scales": scales}, meant)


def gpt_oss() -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]:
    config, plain = checkpoint("gpt_oss")
    written, meant = {}, {}
    for name, values in plain.items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            written[name] = meant[name] = values
            continue
        each = [mxfp4(matrix) for matrix in values]
        for end in ("blocks", "scales"):
            written[f"{name}_{end}"] = np.stack([one.tensors[end] for one in each])
        meant[name] = np.stack([one.stands_for for one in each]).astype(np.float32)
    return config | {"quantization_config": {"quant_method": "mxfp4"}}, written, meant


def mixtral(pack: Any, **method: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    config, plain = checkpoint("mixtral")
    written, meant = packers.checkpoint(plain, pack, lambda name: ".experts." in name)
    return config | {"quantization_config": method}, written, meant


CHECKPOINTS = {
    "mxfp4": (gpt_oss, "mxfp4"),
    "gptq": (
        partial(mixtral, partial(packers.gptq, group=64), quant_method="gptq", bits=4), "int4",
    ),
    "fp8 blocks": (
        partial(
            mixtral,
            lambda w: packers.fp8(w, tuple(-(-n // 128) for n in w.shape), "weight_scale_inv"),
            quant_method="fp8",
        ),
        "fp8",
    ),
    "fp8 columns": (
        partial(mixtral, lambda w: packers.fp8(w, (len(w), 1)), quant_method="fbgemm_fp8"), "fp8",
    ),
}  # fmt: skip


def mixed(model, layer: int) -> np.ndarray:
    """What a layer's experts make of a few tokens."""
    x = jax.random.normal(jax.random.key(0), (9, 64))

    @jax.jit
    def run(leaves):
        table, positions = jnp.zeros((9, 1), jnp.int32), jnp.zeros(9, jnp.int32)
        batch = decode_batch(table, positions, positions == 0, 1, model.mesh)
        return model.layout.unflatten(leaves).layers[layer].mlp(x, batch)[0]

    return np.asarray(run(model.leaves))


@pytest.mark.parametrize("name, shards", [("mxfp4", 1), ("mxfp4", 2), ("gptq", 1),
                                          ("fp8 blocks", 1), ("fp8 columns", 1)])  # fmt: skip
def test_experts_stay_packed_and_are_what_they_stand_for(name, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "has_fp8", lambda _: True)
    make, kind = CHECKPOINTS[name]
    config, written, meant = make()
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    write_checkpoint(tmp_path / "packed", config, written)
    write_checkpoint(tmp_path / "plain", plain, meant)
    model, float32 = (
        load(tmp_path / folder, make_mesh(shards), dtype="float32")
        for folder in ("packed", "plain")
    )
    ours, theirs = (m.layout.unflatten(m.leaves).layers[1].mlp for m in (model, float32))
    for part in ("gate_up", "down"):
        kernel = getattr(ours, part)
        assert isinstance(kernel, ExpertsKernel) and kernel.kind == kind
        found, expected = dequantize(kernel.container()), getattr(theirs, part)[...]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        words = jax.tree.leaves(kernel.container())[0]
        assert words.nbytes == expected.size // (1 if kind == "fp8" else 2)
    expected = mixed(float32, 1)
    assert np.abs(mixed(model, 1) - expected).max() < 1e-4 * expected.std()


def test_int8_quantises_experts_while_they_are_read(tmp_path):
    config, plain = checkpoint("mixtral")
    write_checkpoint(tmp_path, config, plain)
    model, float32 = (
        load(tmp_path, make_mesh(1), dtype="float32", quantization=how) for how in ("int8", None)
    )
    ours, theirs = (m.layout.unflatten(m.leaves).layers[0].mlp for m in (model, float32))
    for part in ("gate_up", "down"):
        expected = np.asarray(getattr(theirs, part)[...])
        step = np.abs(expected).max(axis=1, keepdims=True) / 127
        error = np.abs(dequantize(getattr(ours, part).container()) - expected)
        assert (error <= step * 0.501).all()
    assert theirs.router.kernel[...].dtype == ours.router.kernel[...].dtype
    expected = mixed(float32, 0)
    assert 0.001 < np.abs(mixed(model, 0) - expected).max() / expected.std() < 0.1


@pytest.mark.parametrize("kind", ["int8", "mxfp4", "fp8"])
def test_random_experts_have_the_deviation_of_real_ones(kind, tmp_path, monkeypatch):
    group = {"mxfp4": 32, "int4": 64}.get(kind)
    choose = lambda _, shape: (  # noqa: E731
        partial(ExpertsKernel, kind=kind, group=group) if len(shape) == 3 else None
    )
    monkeypatch.setattr("models.checkpoints.loading.online_kinds", lambda *_: choose)
    config, _ = checkpoint("mixtral", 1)
    tmp_path.joinpath("config.json").write_text(json.dumps(config))
    model = load(tmp_path, make_mesh(1), load_format="dummy")
    down = model.layout.unflatten(model.leaves).layers[0].mlp.down
    deviation = float(np.asarray(dequantize(down.container())).std())
    assert 0.5 < deviation * 128**0.5 < 2


@pytest.mark.parametrize(
    "change, message",
    [
        ({"hidden_size": 40}, "Experts in int8 with 40 inputs"),
        ({}, None),
    ],
)
def test_sizes_that_do_not_fit_are_named(change, message, tmp_path):
    config, _ = checkpoint("mixtral")
    tmp_path.joinpath("config.json").write_text(json.dumps(config | change))
    dummy = partial(load, tmp_path, make_mesh(1), load_format="dummy", quantization="int8")
    if message is None:
        assert dummy().quantization == "int8"
    else:
        with pytest.raises(UnsupportedError, match=message):
            dummy()


def test_a_scale_above_two_is_refused(tmp_path):
    config, written, _ = gpt_oss()
    written["model.layers.0.mlp.experts.down_proj_scales"][0, 0, 0] = 130
    write_checkpoint(tmp_path, config, written)
    with pytest.raises(UnsupportedError, match=r"scale is 2\^3, and MXFP4 scales up to 2"):
        load(tmp_path, make_mesh(1))
