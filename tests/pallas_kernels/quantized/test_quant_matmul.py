"""Products with quantised weights, as their definition says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.errors import KernelError
from pallas_kernels.quantized import Int4Weight, Int8Weight, Nf4Weight, quant_matmul
from pallas_kernels.quantized.weights import dequantize, pack

KINDS = {"int4": Int4Weight, "low": Int4Weight, "nf4": Nf4Weight, "int8": Int8Weight}


def make(M, A, C, group, kind, dtype=jnp.bfloat16):
    rng = np.random.default_rng(0)
    bits = 8 if kind == "int8" else 4
    scale = rng.random((A // group, C)) * 2.0 ** (4 - bits)
    values = [scale, rng.standard_normal(scale.shape)] if kind == "low" else [scale]
    arrays = (jnp.asarray(value, jnp.float32) for value in values)
    weight = KINDS[kind](pack(rng.integers(0, 2**bits, (C, A)), bits), *arrays)
    return jnp.asarray(rng.standard_normal((M, A)), dtype), weight


def distance(got, x, weight):
    want = np.asarray(x, np.float64) @ np.asarray(dequantize(weight), np.float64)
    return np.linalg.norm(np.asarray(got, np.float64) - want) / np.linalg.norm(want)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("M, C", [(1, 128), (9, 40)])
def test_product_on_the_cpu(kind, M, C):
    x, weight = make(M, 256, C, 32, kind, jnp.float32)
    assert distance(quant_matmul(x, weight), x, weight) < 1e-5


@pytest.mark.parametrize(
    "kind, M, A, C, group, splits",
    [
        ("int4", 1, 256, 128, 128, 1),
        ("low", 3, 768, 256, 128, 2),  # parts of two steps and of one
        ("low", 9, 384, 128, 64, 4),  # a step of 128; an empty part
        ("int4", 130, 128, 128, 64, 1),  # two tiles of tokens
        ("int4", 1, 2048, 128, 512, 1),  # more steps than stages, two of them to a group
        ("low", 5, 256, 128, 32, 1),
        ("nf4", 2, 256, 128, 64, 1),
        ("int8", 17, 256, 128, 32, 2),
        ("int8", 1, 256, 128, 256, 1),  # one scale a column
    ],
)
def test_hopper_kernel(kind, M, A, C, group, splits):
    if jax.__version_info__ < (0, 11):
        pytest.skip("Mosaic's interpreter needs JAX 0.11 for this kernel")
    from pallas_kernels.quantized.mosaic_quant import mosaic_quant_matmul

    x, weight = make(M, A, C, group, kind)
    found = mosaic_quant_matmul(x, weight, splits=splits, interpret=True)
    assert distance(found, x, weight) < 0.005


@pytest.mark.parametrize("kind", ["low", "nf4", "int8"])
def test_hopper_kernel_with_tokens_in_float16(kind):
    if jax.__version_info__ < (0, 11):
        pytest.skip("Mosaic's interpreter needs JAX 0.11 for this kernel")
    from pallas_kernels.quantized.mosaic_quant import mosaic_quant_matmul

    x, weight = make(2, 128, 128, 32, kind, jnp.float16)
    assert distance(mosaic_quant_matmul(x, weight, splits=1, interpret=True), x, weight) < 0.001


def test_splits_give_every_core_a_block():
    pytest.importorskip("absl")
    from pallas_kernels.quantized.mosaic_quant import choose_splits

    assert choose_splits(28672, 1, 132) == 1
    assert choose_splits(4096, 1, 132) == 8
    assert choose_splits(256, 1, 132) == 16


@pytest.mark.parametrize(
    "sizes, dtype, limit",
    [
        ((2, 128, 128, 16), jnp.bfloat16, "groups of 16"),
        ((2, 384, 128, 192), jnp.bfloat16, "groups of 192"),
        ((2, 128, 96, 64), jnp.bfloat16, "a multiple of 128, not 96"),
        ((2, 128, 128, 64), jnp.float32, "16 bits, not float32"),
    ],
)
def test_refuses_by_name(sizes, dtype, limit):
    pytest.importorskip("absl")
    from pallas_kernels.quantized.mosaic_quant import mosaic_quant_matmul

    x, weight = make(*sizes, "int4", dtype)
    with pytest.raises(KernelError, match=limit):
        mosaic_quant_matmul(x, weight, splits=1)
