"""exp and softplus as a CPU computes many of them."""

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels.exponential import quick_exp, quick_softplus


def test_quick_exp_is_exp_to_a_few_units_in_the_last_place():
    x = np.concatenate([np.linspace(-87, 88, 5001), np.linspace(-1, 1, 501)]).astype(np.float32)
    got = np.asarray(jax.jit(quick_exp)(x), np.float64)
    np.testing.assert_allclose(got, np.exp(x.astype(np.float64)), rtol=1e-5)
    near = np.abs(x) <= 2
    np.testing.assert_allclose(got[near], np.exp(x[near].astype(np.float64)), rtol=3e-7)


def test_quick_exp_at_its_ends():
    got = quick_exp(jnp.asarray([0.0, -200.0, -jnp.inf, jnp.nan]))
    assert got[0] == 1 and 0 < got[1] == got[2] < 1e-37 and jnp.isnan(got[3])


def test_quick_softplus_is_softplus_to_a_few_units_in_the_last_place():
    x = np.concatenate([np.linspace(-85, 120, 5001), np.linspace(-1, 1, 501)]).astype(np.float32)
    got = np.asarray(jax.jit(quick_softplus)(x), np.float64)
    np.testing.assert_allclose(got, np.logaddexp(0, x.astype(np.float64)), rtol=1e-5)
    near = np.abs(x) <= 2
    want = np.logaddexp(0, x[near].astype(np.float64))
    np.testing.assert_allclose(got[near], want, rtol=3e-7)


def test_quick_softplus_at_its_ends():
    got = quick_softplus(jnp.asarray([jnp.inf, -jnp.inf, -200.0, jnp.nan]))
    assert got[0] == jnp.inf and got[1] == got[2] < 1e-37 and jnp.isnan(got[3])
