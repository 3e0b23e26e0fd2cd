"""The noise is made of jax.random's bits, and is Gumbel's to float32's precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.sampling.noise import gumbel, row_key, row_noise, threefry

V = 300
SEEDS = [(0, 0, 0), (1, 2, 3), (0xFFFFFFFF, 0x80000000, 2**31 - 1)]


def bits_of_jax(high: int, low: int, position: int) -> np.ndarray:
    key = jax.random.wrap_key_data(jnp.array([high, low], jnp.uint32), impl="threefry2x32")
    return np.asarray(jax.random.bits(jax.random.fold_in(key, position), (V,)))


@pytest.mark.parametrize("seed", SEEDS)
def test_bits_are_those_of_jax_random(seed):
    key = row_key(jnp.uint32(seed[0]), jnp.uint32(seed[1]), jnp.int32(seed[2]))
    x, y = threefry(key, jnp.zeros(V, jnp.uint32), jnp.arange(V, dtype=jnp.uint32))
    np.testing.assert_array_equal(x ^ y, bits_of_jax(*seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_is_the_double_logarithm_of_the_bits(seed):
    uniform = np.clip(bits_of_jax(*seed) * 2.0**-32, 2.0**-33, 1 - 2.0**-24)
    key = row_key(jnp.uint32(seed[0]), jnp.uint32(seed[1]), jnp.int32(seed[2]))
    noise = gumbel(key, jnp.arange(V))
    np.testing.assert_allclose(noise, -np.log(-np.log1p(-uniform)), rtol=1e-5, atol=1e-5)


def test_each_row_has_its_own():
    high, low, position = (jnp.array(column, jnp.uint32) for column in zip(*SEEDS, strict=True))
    noise = row_noise(high, low, position.astype(jnp.int32), V)
    for row, seed in enumerate(SEEDS):
        key = row_key(jnp.uint32(seed[0]), jnp.uint32(seed[1]), jnp.int32(seed[2]))
        np.testing.assert_allclose(noise[row], gumbel(key, jnp.arange(V)), rtol=1e-6)
