"""Packed weights: words hold what they were given, and mean what the module's equations say."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pallas_kernels.errors import KernelError
from pallas_kernels.quantized.weights import (
    NF4,
    Int4Weight,
    Int8Weight,
    Nf4Weight,
    dequantize,
    group_size,
    pack,
    unpack,
)


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 99), st.sampled_from([4, 8]))
def test_numbers_survive_packing(seed, bits):
    numbers = np.random.default_rng(seed).integers(0, 2**bits, (3, 256))
    np.testing.assert_array_equal(unpack(pack(numbers, bits), bits), numbers)


def test_a_word_holds_what_a_thread_multiplies():
    words = np.asarray(pack((np.arange(128) == 32 * 2 + 8 * 3 + 2 * 1 + 1)[None].astype(int)))
    assert np.flatnonzero(words).tolist() == [4 * 1 + 3] and words.max() == 1 << (16 + 4 * 2)


def test_rows_that_fill_no_block_are_refused():
    with pytest.raises(KernelError, match="multiple of 128, not 96"):
        pack(np.zeros((2, 96), int))


@pytest.mark.parametrize("low", [None, -3.0])
def test_four_bits_are_evenly_spaced(low):
    numbers, scale, wide = drawn(4)
    lowest = None if low is None else jnp.full(scale.shape, low)
    weight = Int4Weight(pack(numbers), jnp.asarray(scale), lowest)
    want = (numbers - 8) * wide if low is None else numbers * wide + low
    assert group_size(weight) == 32
    np.testing.assert_array_equal(dequantize(weight).T, want)


def test_nf4_is_spaced_as_its_table():
    numbers, scale, wide = drawn(4)
    weight = Nf4Weight(pack(numbers), jnp.asarray(scale))
    np.testing.assert_array_equal(dequantize(weight).T, np.float32(NF4)[numbers] * wide)


def test_eight_bits_have_a_sign():
    numbers, scale, wide = drawn(8)
    weight = Int8Weight(pack(numbers, 8), jnp.asarray(scale))
    np.testing.assert_array_equal(dequantize(weight).T, numbers.astype(np.int8) * wide)


def drawn(bits):
    """Numbers [C, A], scales [g, C] that float32 multiplies exactly, and these for each number."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2**bits, (24, 128))
    scale = rng.integers(1, 64, (4, 24)).astype(np.float32) / 16
    return numbers, scale, np.repeat(scale.T, 32, axis=1)
