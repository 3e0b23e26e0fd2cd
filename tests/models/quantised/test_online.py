"""Weights that are quantised while they are read, against products rounded alike in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from models.errors import UnsupportedError
from models.quantised.kernels import Fp8Kernel, Int8Kernel
from models.quantised.packing import decoder_layout
from models.registry import find_architecture
from models.sharding import make_mesh
from tests.models.quantised import packers
from tests.models.quantised import small_llama as small
from tests.parity.cases import CASES


def rounded(values: np.ndarray) -> np.ndarray:
    """Each row as whole numbers up to 127 times a scale."""
    scale = np.abs(values).max(-1, keepdims=True) / 127
    return np.rint(values / scale) * scale


def w8a8(shards: int, weights: bool = True) -> small.Product:
    """A product of eight bits; inputs that devices divide are rounded by parts.

    `weights` are rounded too, or have been.
    """

    def product(x: np.ndarray, w: np.ndarray, name: str) -> np.ndarray:
        parts = shards if name.endswith(("o_proj", "down_proj")) else 1
        pieces = zip(np.split(x, parts, 1), np.split(w, parts, 1), strict=True)
        return sum(rounded(a) @ (rounded(b) if weights else b).T for a, b in pieces)

    return product


@pytest.mark.parametrize("shards", [1, 2])
def test_int8_is_what_it_is_in_float64(folder, shards):
    model = small.loaded(folder, shards, quantization="int8")
    expected = small.reference(small.tensors(), w8a8(shards))
    exact = small.reference(small.tensors())
    # a number in the middle of two may go either way
    assert small.distance(small.logits(model), expected) < 0.01
    assert 0.02 < small.distance(expected, exact) < 0.3
    assert small.distance(small.logits(model), exact) > 0.02


def test_eight_bits_are_what_is_resident(folder):
    model, float32 = (small.loaded(folder, quantization=q) for q in ("int8", None))
    tensors = small.tensors()
    packed = {name for name in tensors if small.is_linear(name) or name == "lm_head.weight"}
    expected = sum(
        values.size + 4 * len(values) if name in packed else values.nbytes
        for name, values in tensors.items()
    )
    assert sum(leaf.nbytes for leaf in model.leaves) == expected
    assert model.num_parameters == float32.num_parameters == sum(v.size for v in tensors.values())
    assert (model.quantization, float32.quantization) == ("int8", None)


def test_scales_of_all_layers_are_one_leaf(folder):
    leaves = small.loaded(folder, quantization="int8").layout.leaves
    stacked = [leaf for leaf in leaves if leaf.paths[0].endswith("kernel.scale") and leaf.stacked]
    assert len(stacked) == 4


def test_each_device_holds_its_part_and_the_scales_of_it(folder):
    model = small.loaded(folder, 2, quantization="int8")
    parts = {
        leaf.paths[0]: [shard.data.shape for shard in array.addressable_shards]
        for leaf, array in zip(model.layout.leaves, model.leaves, strict=True)
    }
    assert parts["layers.0.mlp.down.kernel.numbers"] == [(small.D, small.F // 2)] * 2
    assert parts["layers.0.mlp.down.kernel.scale"] == [(2, small.D)] * 2  # of its inputs only
    assert parts["layers.0.mlp.gate_up.kernel.numbers"] == [(small.F, small.D)] * 2
    assert parts["head.kernel.scale"] == [(34,)] * 2  # 67 tokens, and one to make them even


@pytest.mark.parametrize("kind", [Int8Kernel, Fp8Kernel])
def test_numbers_times_scale_are_the_nearest(kind):
    matrix = np.random.default_rng(0).normal(size=(9, 40)).astype(np.float32)
    matrix[3] = 0
    numbers, scale, zeros = kind.nearest(matrix.copy())
    assert zeros is None
    every = np.arange(-127, 128) if kind is Int8Kernel else _every_e4m3()
    error = np.abs(numbers.astype(np.float32) * scale - matrix)
    best = np.abs(every * scale[..., None] - matrix[..., None]).min(-1)
    np.testing.assert_allclose(error, best, atol=1e-6)
    assert not numbers[3].any()


def _every_e4m3() -> np.ndarray:
    values = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    return values[np.isfinite(values)]


def test_what_cannot_be_is_refused_in_one_sentence(folder):
    with pytest.raises(UnsupportedError, match=r"fp8 needs a GPU.*use --quantization int8"):
        small.loaded(folder, quantization="fp8")
    with pytest.raises(UnsupportedError, match="is not quantised, and --quantization gptq"):
        small.loaded(folder, quantization="gptq")


def test_a_checkpoint_that_is_quantised_is_not_quantised_again(tmp_path):
    config = {"quantization_config": {"quant_method": "fp8"}}
    pack = partial(packers.fp8, grid=(1, 1))
    small.write(tmp_path, packers.checkpoint(small.tensors(), pack, small.is_linear)[0], **config)
    with pytest.raises(UnsupportedError, match=r"quantised already \(fp8\); leave --quantization"):
        small.loaded(tmp_path, quantization="int8")
    assert small.loaded(tmp_path, quantization="fp8").quantization == "fp8"


@pytest.mark.parametrize("kind", [Int8Kernel, Fp8Kernel])
def test_random_weights_have_the_deviation_of_real_ones(folder, kind, monkeypatch):
    monkeypatch.setattr("models.checkpoints.loading.online_kinds", lambda *_: lambda *_: kind)
    model = small.loaded(folder, 2, load_format="dummy")
    decoder = model.layout.unflatten(model.leaves)
    out = decoder.layers[0].mlp.down(jax.random.normal(jax.random.key(0), (64, small.F)))
    assert 0.8 < float(jnp.std(out)) < 1.25


def test_routers_stay_as_they_are():
    raw = CASES["qwen2_moe"].config
    config = find_architecture(raw).config(raw)
    _, kernels = decoder_layout(
        config,
        np.dtype("float32"),
        make_mesh(1),
        lambda _, shape: Int8Kernel if len(shape) == 2 else None,
    )
    assert any("mlp.shared.down" in path for path in kernels)
    assert not any("router" in path or "shared_gate" in path for path in kernels)
