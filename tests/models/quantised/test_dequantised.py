"""Quantised checkpoints are read as the numbers they stand for."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from models.checkpoints.safetensors import SafetensorsFile
from models.errors import CheckpointError, UnsupportedError
from models.quantised.eight_bits import read_eight_bits
from models.quantised.methods import quantisation_method
from models.quantised.mxfp4 import read_mxfp4
from tests.models.checkpoints.safetensors_files import write_safetensors

E4M3 = ml_dtypes.float8_e4m3fn
E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]


def tensors(path: Path, **arrays: np.ndarray):
    write_safetensors(path / "a.safetensors", arrays)
    return SafetensorsFile(path / "a.safetensors").tensors


@pytest.mark.parametrize("grid", [(3, 2), (1, 1), (300, 1), (), (1,)])
def test_fp8_weights_are_multiplied_by_their_rectangles_scale(tmp_path, grid):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(300, 200)).astype(E4M3)
    scale = rng.uniform(0.1, 3, grid).astype(np.float32)
    found = read_eight_bits(tensors(tmp_path, w=weight, w_scale_inv=scale))
    assert list(found) == ["w"]
    rows = np.arange(300) // (128 if grid == (3, 2) else 1 if grid == (300, 1) else 300)
    columns = np.arange(200) // (128 if grid == (3, 2) else 200)
    each = scale[rows[:, None], columns] if len(grid) == 2 else scale.reshape(())
    expected = weight.astype(np.float32) * each
    np.testing.assert_array_equal(found["w"].read(), expected)
    np.testing.assert_array_equal(found["w"].read(120, 131), expected[120:131])


def test_mxfp4_is_decoded_number_by_number(tmp_path):
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (2, 6, 3, 16), np.uint8)
    scales = rng.integers(120, 134, (2, 6, 3)).astype(np.uint8)
    found = read_mxfp4(tensors(tmp_path, x_blocks=blocks, x_scales=scales))
    expected = np.zeros((2, 96, 6), np.float32)
    for e, c, b, i in np.ndindex(blocks.shape):
        factor = 2.0 ** (int(scales[e, c, b]) - 127)
        expected[e, 32 * b + 2 * i, c] = E2M1[blocks[e, c, b, i] & 15] * factor
        expected[e, 32 * b + 2 * i + 1, c] = E2M1[blocks[e, c, b, i] >> 4] * factor
    assert found["x"].shape == (2, 96, 6)
    np.testing.assert_array_equal(found["x"].read(), expected)
    np.testing.assert_array_equal(found["x"].entry(1).read(40, 50), expected[1, 40:50])


def test_a_missing_or_wrong_scale_is_named(tmp_path):
    weight = np.zeros((300, 200), E4M3)
    with pytest.raises(CheckpointError, match="'w_scale_inv', its scale, is missing"):
        read_eight_bits(tensors(tmp_path, w=weight))
    with pytest.raises(CheckpointError, match=r"'w_scale_inv' has the shape \[2, 2\]"):
        read_eight_bits(tensors(tmp_path, w=weight, w_scale_inv=np.zeros((2, 2), np.float32)))
    blocks = np.zeros((2, 6, 3, 8), np.uint8)
    with pytest.raises(CheckpointError, match="must be"):
        scales = np.zeros((2, 6, 3), np.uint8)
        read_mxfp4(tensors(tmp_path, x_blocks=blocks, x_scales=scales))


@pytest.mark.parametrize("method", ["bitsandbytes", None])
def test_other_methods_are_refused_by_name(method):
    with pytest.raises(UnsupportedError, match=f"quantised \\({method!r}\\); only fp8,"):
        quantisation_method({"quantization_config": {"quant_method": method}})
