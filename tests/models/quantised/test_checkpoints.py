"""Quantised checkpoints: packed on the devices, and the model that their numbers stand for."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from models.errors import CheckpointError, UnsupportedError
from pallas_kernels.quantized import Int4Weight, Int8Weight
from pallas_kernels.quantized.weights import dequantize
from tests.models.quantised import packers
from tests.models.quantised import small_llama as small
from tests.models.quantised.test_online import w8a8


def scheme(bits: int, kind: str, form: str, activations: bool) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": kind, "symmetric": True}
    tokens = {"num_bits": bits, "type": kind, "dynamic": True} if activations else None
    group = {"targets": ["Linear"], "weights": weights, "input_activations": tokens}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"}
FUSED = {
    "attention.qkv": [f"self_attn.{name}_proj" for name in "qkv"],
    "attention.o": ["self_attn.o_proj"],
    "mlp.gate_up": ["mlp.gate_proj", "mlp.up_proj"],
    "mlp.down": ["mlp.down_proj"],
}
# name: packer, config.json's quantization_config, bits of a number, of a group's scale and zero
GROUPED = {
    "gptq": (partial(packers.gptq, group=64), {**GPTQ, "sym": True}, 4, 64, 32),
    "gptq with zeros": (
        partial(packers.gptq, group=32, zeros=True), {**GPTQ, "sym": False}, 4, 32, 64,
    ),
    "gptq, second format": (
        partial(packers.gptq, group=64, zeros=True, less=0),
        {**GPTQ, "sym": False, "checkpoint_format": "gptq_v2"}, 4, 64, 64,
    ),
    "gptq, 8 bits": (
        partial(packers.gptq, group=64, bits=8), {**GPTQ, "bits": 8, "sym": True}, 8, 64, 32,
    ),
    "awq": (partial(packers.awq, group=64), AWQ, 4, 64, 64),
    "compressed": (
        partial(packers.compressed, group=64), scheme(4, "int", "pack-quantized", False), 4, 64, 32,
    ),
    "compressed with zeros": (
        partial(packers.compressed, group=64, zeros=True),
        scheme(4, "int", "pack-quantized", False), 4, 64, 64,
    ),
    "compressed, 8 bits": (
        partial(packers.compressed, group=128, bits=8),
        scheme(8, "int", "pack-quantized", False), 8, 128, 32,
    ),
}  # fmt: skip


def write(folder, pack, config, **changed):
    """The checkpoint, and its tensors as they are meant."""
    written, meant = packers.checkpoint(small.tensors(), pack, small.is_linear)
    written |= {name.replace("__", "."): values for name, values in changed.items()}
    kept = {name: values for name, values in written.items() if values is not None}
    return small.write(folder, kept, quantization_config=config), meant


def resident(model) -> int:
    return sum(leaf.nbytes for leaf in model.leaves)


@pytest.mark.parametrize("name", GROUPED)
def test_groups_stay_packed_and_mean_what_they_stand_for(name, tmp_path):
    pack, config, bits, group, beside = GROUPED[name]
    folder, meant = write(tmp_path, pack, config)
    model = small.loaded(folder)
    for path, parts in FUSED.items():
        expected = np.vstack([meant[f"model.layers.1.{part}.weight"] for part in parts]).T
        np.testing.assert_allclose(matrix(model, path), expected, rtol=1e-5, atol=1e-6)
    expected = sum(
        values.size * bits // 8 + values.size // group * beside // 8
        if small.is_linear(tensor)
        else 4 * values.size
        for tensor, values in meant.items()
    )
    assert resident(model) == expected
    assert model.quantization == config["quant_method"]


def matrix(model, path: str) -> np.ndarray:
    """A kernel of layer 1, dequantised: [A, C]."""
    layer: Any = model.layout.unflatten(model.leaves).layers[1]
    for name in path.split("."):
        layer = getattr(layer, name)
    kind = Int4Weight if layer.kernel.bits == 4 else Int8Weight
    return np.asarray(
        dequantize(kind(*(getattr(layer.kernel, n)[...] for n in layer.kernel.parts)))
    )


@pytest.mark.parametrize(
    "name, shards", [("gptq with zeros", 1), ("awq", 2), ("compressed, 8 bits", 2)]
)
def test_logits_are_those_of_what_the_groups_stand_for(name, shards, tmp_path):
    pack, config, bits, *_ = GROUPED[name]
    folder, meant = write(tmp_path, pack, config)
    model = small.loaded(folder, shards)
    assert small.distance(small.logits(model), small.reference(meant)) < 1e-4
    parts = {
        leaf.paths[0]: array.addressable_shards[0].data.nbytes * shards
        for leaf, array in zip(model.layout.leaves, model.leaves, strict=True)
    }
    assert parts["layers.1.mlp.down.kernel.words"] == small.F * small.D * bits // 8


def test_one_group_for_all_inputs_is_there_once_a_shard(tmp_path):
    folder, meant = write(
        tmp_path, lambda w: packers.gptq(w, w.shape[1]), {**GPTQ, "group_size": -1}
    )
    model = small.loaded(folder, 2)
    expected = meant["model.layers.1.mlp.down_proj.weight"].T
    np.testing.assert_allclose(matrix(model, "mlp.down"), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shards", [1, 2])
def test_int8_beside_activations_rounds_tokens_too(shards, tmp_path):
    folder, meant = write(tmp_path, packers.int8, scheme(8, "int", "int-quantized", True))
    model = small.loaded(folder, shards)
    eight_bits = w8a8(shards, weights=False)

    def product(x: np.ndarray, w: np.ndarray, name: str) -> np.ndarray:
        return (eight_bits if "_proj" in name else small.plain)(x, w, name)

    assert small.distance(small.logits(model), small.reference(meant, product)) < 0.01
    assert resident(model) < 2 * sum(values.size for values in meant.values())


@pytest.mark.parametrize(
    "pack, config",
    [
        (partial(packers.fp8, grid=(1, 1)), scheme(8, "float", "float-quantized", True)),
        (lambda w: packers.fp8(w, (len(w), 1)), {"quant_method": "fbgemm_fp8"}),
        (lambda w: packers.fp8(w, (1, 1)), {"quant_method": "modelopt", "quant_algo": "FP8"}),
        (
            lambda w: packers.fp8(w, tuple(-(-s // 128) for s in w.shape), "weight_scale_inv"),
            {"quant_method": "fp8", "weight_block_size": [128, 128]},
        ),
    ],
)
def test_fp8_is_dequantised_where_there_are_no_such_numbers(pack, config, tmp_path):
    name = "model.layers.0.mlp.up_proj.input_scale"
    folder, meant = write(tmp_path, pack, config, **{name: np.ones(1, np.float32)})
    model = small.loaded(folder)
    down: Any = model.layout.unflatten(model.leaves).layers[1].mlp.down
    expected = meant["model.layers.1.mlp.down_proj.weight"].T
    np.testing.assert_allclose(down.kernel[...], expected, rtol=1e-6)
    assert resident(model) == 4 * sum(values.size for values in meant.values())


UP = "model__layers__1__mlp__up_proj__"


@pytest.mark.parametrize(
    "config, changed, error, message",
    [
        ({"bits": 3}, {}, UnsupportedError, "have 3 bits; 4 and 8 are read"),
        ({"sym": True}, {f"{UP}qzeros": np.zeros((2, 32), np.int32)}, CheckpointError,
         r"up_proj.qzeros' is not as config.json's sym calls for"),
        ({}, {f"{UP}g_idx": np.zeros(128, np.int32)}, UnsupportedError,
         r"up_proj.g_idx' puts inputs into groups by their importance \(desc_act"),
        ({}, {f"{UP}scales": None}, CheckpointError, r"mlp.up_proj' are quantised and have no"),
        ({}, {f"{UP}scales": np.zeros((3, 256), np.float16)}, CheckpointError,
         r"up_proj.scales' has 3 groups for 128 inputs"),
        ({}, {f"{UP}scales": np.zeros((2, 255), np.float16)}, CheckpointError,
         r"up_proj.scales' has the shape \[2, 255\], which does not fit the 256 outputs"),
        ({}, {f"{UP}qweight": np.zeros((16, 248), np.int32)}, CheckpointError,
         r"does not fit the 248 outputs"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(config, changed, error, message, tmp_path):
    folder, _ = write(tmp_path, partial(packers.gptq, group=64), {**GPTQ, **config}, **changed)
    with pytest.raises(error, match=message):
        small.loaded(folder)


def test_groups_that_devices_would_cut_are_refused(tmp_path):
    folder, _ = write(tmp_path, partial(packers.gptq, group=64), GPTQ)
    with pytest.raises(UnsupportedError, match=r"with 64 inputs on a device in groups of 64"):
        small.loaded(folder, 4)
