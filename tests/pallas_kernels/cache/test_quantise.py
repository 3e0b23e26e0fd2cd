"""Eight-bit keys and values: how near they come, and that nothing escapes the range."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pallas_kernels.cache.quantise import QUANTISED, dequantise, is_quantised, quantise

_WORST = {"int8": 0.5 / 127, "float8_e4m3fn": 1 / 16}  # error: of the largest entry; of the entry


@pytest.mark.parametrize("dtype", QUANTISED)
@settings(max_examples=20, deadline=None)
@given(magnitude=st.floats(1e-20, 1e20), seed=st.integers(0, 2**31))
def test_each_vector_comes_back_as_near_as_its_dtype_allows(dtype, magnitude, seed):
    x = np.random.default_rng(seed).normal(size=(3, 2, 64)) * magnitude
    values, scale = quantise(jnp.asarray(x, jnp.float32), dtype)
    largest = np.abs(x).max(axis=-1, keepdims=True)
    of = largest if dtype == "int8" else np.maximum(np.abs(x), largest * 2.0**-9 / 448 * 16)
    error = np.abs(np.asarray(dequantise(values, scale)) - x) / of
    assert error.max() <= _WORST[dtype] * 1.001


@pytest.mark.parametrize("dtype", QUANTISED)
def test_zeros_stay_zeros(dtype):
    values, scale = quantise(jnp.zeros((2, 64)), dtype)
    assert np.all(np.asarray(dequantise(values, scale)) == 0)


def test_only_eight_bits_come_with_scales():
    assert is_quantised("int8") and is_quantised(jnp.float8_e4m3fn)
    assert not is_quantised(jnp.bfloat16)
