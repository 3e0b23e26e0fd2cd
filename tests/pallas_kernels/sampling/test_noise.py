"""The noise is made of jax.random's bits, and is Gumbel's to float32's precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.sampling.noise import bits, gumbel, gumbel_without_log1p, row_key, row_noise

V = 300
SEEDS = [(0, 0, 0), (1, 2, 3), (0xFFFFFFFF, 0x80000000, 2**31 - 1)]


def bits_of_jax(high: int, low: int, position: int) -> np.ndarray:
    key = jax.random.wrap_key_data(jnp.array([high, low], jnp.uint32), impl="threefry2x32")
    return np.asarray(jax.random.bits(jax.random.fold_in(key, position), (V,)))


def key_of(high: int, low: int, position: int):
    return row_key(jnp.uint32(high), jnp.uint32(low), jnp.int32(position))


@pytest.mark.parametrize("seed", SEEDS)
def test_bits_are_those_of_jax_random(seed):
    np.testing.assert_array_equal(bits(key_of(*seed), jnp.arange(V)), bits_of_jax(*seed))


@pytest.mark.parametrize("make", [gumbel, gumbel_without_log1p])
@pytest.mark.parametrize("seed", SEEDS)
def test_noise_is_the_double_logarithm_of_the_bits(seed, make):
    found = bits_of_jax(*seed)
    uniform = np.clip(found * 2.0**-32, 2.0**-33, 1 - 2.0**-24)
    want = -np.log(-np.log1p(-uniform))
    np.testing.assert_allclose(make(jnp.asarray(found)), want, rtol=1e-5, atol=1e-5)


def test_noise_is_finite_at_both_ends_and_smooth_where_the_series_ends():
    ends = jnp.array([0, 1, 2**27 - 1, 2**27, 2**27 + 1, 2**32 - 1], jnp.uint32)
    assert np.isfinite(gumbel_without_log1p(ends)).all()
    np.testing.assert_allclose(gumbel_without_log1p(ends), gumbel(ends), rtol=1e-6)


def test_each_row_has_its_own():
    high, low, position = (jnp.array(column, jnp.uint32) for column in zip(*SEEDS, strict=True))
    noise = row_noise(high, low, position.astype(jnp.int32), V)
    for row, seed in enumerate(SEEDS):
        np.testing.assert_allclose(noise[row], gumbel(bits_of_jax(*seed)), rtol=1e-6)


def test_noise_is_the_same_where_jax_has_64_bits():
    row = jnp.ones(1, jnp.uint32), jnp.full(1, 7, jnp.uint32), jnp.full(1, 3, jnp.int32)
    narrow = row_noise(*row, V)
    with jax.enable_x64(True):
        wide = row_noise(*row, V)
    assert wide.dtype == jnp.float32
    np.testing.assert_array_equal(narrow, wide)
