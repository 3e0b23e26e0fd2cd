"""4-bit weights: repacked exactly, and multiplied as their definition says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pallas_kernels.errors import KernelError
from pallas_kernels.quantized import Int4Weight, quant_matmul
from pallas_kernels.quantized.weights import dequantize, from_awq, from_gptq


def pack(numbers, order=range(8)):
    """[..., 8 n] numbers of 4 bits as [..., n] int32; place i takes number order[i]."""
    eights = numbers.reshape(*numbers.shape[:-1], -1, 8).astype(np.uint32)
    words = sum(eights[..., number] << np.uint32(4 * place) for place, number in enumerate(order))
    return words.astype(np.uint32).view(np.int32)


def drawn(seed, A, C, group):
    rng = np.random.default_rng(seed)
    numbers, zeros = rng.integers(0, 16, (A, C)), rng.integers(0, 16, (A // group, C))
    scales = rng.random((A // group, C)).astype(np.float16)
    wide = np.repeat(scales.astype(np.float64), group, 0)
    return numbers, zeros, scales, wide * (numbers - np.repeat(zeros, group, 0))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from([(16, 8, 8), (32, 24, 16), (64, 16, 64)]))
def test_gptq_is_repacked_exactly(seed, sizes):
    numbers, zeros, scales, matrix = drawn(seed, *sizes)
    stored = pack(np.maximum(zeros, 1) - 1)  # one less, as the format has it
    matrix += np.repeat(scales.astype(np.float64), sizes[2], 0) * np.repeat(
        zeros - np.maximum(zeros, 1), sizes[2], 0
    )
    weight = from_gptq(pack(numbers.T).T.copy(), stored, scales)
    assert weight.group_size == sizes[2]
    np.testing.assert_allclose(dequantize(weight), matrix, atol=2e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from([(16, 8, 8), (32, 24, 16)]))
def test_awq_is_repacked_exactly(seed, sizes):
    numbers, zeros, scales, matrix = drawn(seed, *sizes)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    weight = from_awq(pack(numbers, order), pack(zeros, order), scales)
    np.testing.assert_allclose(dequantize(weight), matrix, atol=2e-5)


def test_zeros_in_the_middle_cost_nothing():
    numbers, _, scales, _ = drawn(0, 16, 8, 8)
    weight = from_gptq(pack(numbers.T).T.copy(), pack(np.full((2, 8), 7)), scales)
    assert weight.low is None


def make(M, A, C, group, low, dtype=jnp.bfloat16):
    rng = np.random.default_rng(0)
    q = jnp.asarray(rng.integers(-8, 8, (C, A)), jnp.int8).astype(jnp.int4)
    scale = jnp.asarray(rng.random((A // group, C)), jnp.float32)
    lows = jnp.asarray(rng.standard_normal(scale.shape), jnp.float32) if low else None
    return jnp.asarray(rng.standard_normal((M, A)), dtype), Int4Weight(q, scale, lows)


def distance(got, x, weight):
    want = np.asarray(x, np.float64) @ np.asarray(dequantize(weight), np.float64)
    return np.linalg.norm(np.asarray(got, np.float64) - want) / np.linalg.norm(want)


@pytest.mark.parametrize("low", [False, True])
def test_product_on_the_cpu(low):
    x, weight = make(3, 96, 40, 32, low, jnp.float32)
    assert distance(quant_matmul(x, weight), x, weight) < 1e-5


@pytest.mark.parametrize(
    "M, A, C, group, low, splits",
    [
        (1, 256, 128, 128, False, 1),
        (3, 384, 256, 128, True, 2),  # parts of two groups and of one
        (9, 256, 128, 64, True, 4),
        (130, 128, 128, 64, False, 1),  # two tiles of tokens
        (1, 1280, 128, 128, False, 1),  # more groups than stages
    ],
)
def test_hopper_kernel(M, A, C, group, low, splits):
    if jax.__version_info__ < (0, 11):
        pytest.skip("Mosaic's interpreter needs JAX 0.11 for this kernel")
    from pallas_kernels.quantized.mosaic_quant import mosaic_quant_matmul

    x, weight = make(M, A, C, group, low)
    assert (
        distance(mosaic_quant_matmul(x, weight, splits=splits, interpret=True), x, weight) < 0.005
    )


def test_splits_give_every_core_a_block():
    pytest.importorskip("absl")
    from pallas_kernels.quantized.mosaic_quant import choose_splits

    assert choose_splits(28672, 1, 132) == 1
    assert choose_splits(4096, 1, 132) == 8
    assert choose_splits(256, 1, 132) == 16


@pytest.mark.parametrize(
    "sizes, dtype, limit",
    [
        ((2, 64, 128, 32), jnp.bfloat16, "groups of .*, not 32"),
        ((2, 128, 96, 64), jnp.bfloat16, "a multiple of 128, not 96"),
        ((2, 128, 128, 64), jnp.float32, "16 bits, not float32"),
    ],
)
def test_refuses_by_name(sizes, dtype, limit):
    pytest.importorskip("absl")
    from pallas_kernels.quantized.mosaic_quant import mosaic_quant_matmul

    x, weight = make(*sizes, False, dtype)
    with pytest.raises(KernelError, match=limit):
        mosaic_quant_matmul(x, weight, splits=1)
