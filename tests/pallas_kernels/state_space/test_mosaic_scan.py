"""The scans for Hopper equal the specification, in Mosaic's interpreter, without races.

Chunks round what they multiply to 16 bits, so that theirs is compared in norm.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.errors import KernelError
from pallas_kernels.state_space.reference import causal_conv_reference, ssm_scan_reference

if jax.__version_info__ < (0, 11):
    pytest.skip("Mosaic's interpreter needs JAX 0.11 for this kernel", allow_module_level=True)
pytest.importorskip("absl", reason="Mosaic GPU needs absl-py")

from pallas_kernels.state_space.mosaic_chunks import FEW, mosaic_chunks, takes_chunks
from pallas_kernels.state_space.mosaic_conv import mosaic_conv, takes_conv
from pallas_kernels.state_space.mosaic_scan import check_limits, mosaic_scan
from tests.pallas_kernels.state_space.test_state_space import KINDS, check, make_arrays, make_rows


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_equal_reference(kind):
    rows = make_rows([19, 0, 1, 33], fresh={1, 3})
    arrays, extra = make_arrays(kind, rows, 56)
    got = mosaic_scan(*arrays, rows, interpret=True, **extra)
    check(got, ssm_scan_reference(*arrays, rows, **extra), rows)


def chunk_arrays(counts, padding, N, S, J, alike, seed=0):
    """State, values, keys, queries, rates, beta; padding is NaN, keys have norm 1.

    Token 5 forgets all that was before it.
    """
    rng = np.random.default_rng(seed)
    T = sum(counts) + padding

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    keys = normal(T, J, S) + alike * normal(1, J, S)
    keys /= jnp.linalg.norm(keys, axis=-1, keepdims=True)
    arrays = normal(T, N, 64), keys, normal(T, J, S), -jnp.exp(normal(T, N, 1) - 2)
    arrays = *arrays[:3], arrays[3].at[5].set(-jnp.inf), jax.nn.sigmoid(normal(T, N))
    v, k, q, rates, beta = (x.at[sum(counts) :].set(jnp.nan) for x in arrays)
    v, k, q = (x.astype(jnp.bfloat16) for x in (v, k, q))
    return (normal(len(counts) + 1, N, 64, S), v, k, q, rates), beta


CHUNKS = {  # name: lengths of rows, padding, (heads, state size, keys), beta, how alike keys are
    "ends of tiles, short rows": ([70, FEW, FEW + 1, 3, 0, 1, 45], 0, (1, 64, 1), False, 0),
    "padding, wide state": ([20, 0, 60], 8, (1, 256, 1), False, 0),
    "delta": ([70, 0, 1, 59, 64], 6, (2, 64, 1), True, 0),
    "delta, keys alike": ([64], 0, (2, 128, 2), True, 1),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_chunks_equal_reference(name):
    counts, padding, sizes, delta, alike = CHUNKS[name]
    rows = make_rows(counts, fresh={2})
    arrays, beta = chunk_arrays(counts, padding, *sizes, alike)
    extra = {"beta": beta} if delta else {}
    y, state = mosaic_chunks(*arrays, rows, interpret=True, **extra)
    want_y, want_state = ssm_scan_reference(*arrays, rows, **extra)
    for b in range(len(counts)):
        part = slice(int(rows.first[b]), int(rows.first[b] + rows.length[b]))
        near(y[part], want_y[part], 0.006)
        near(state[rows.slots[b]], want_state[rows.slots[b]], 0.006)
    (unused,) = set(range(len(counts) + 1)) - set(np.asarray(rows.slots).tolist())
    np.testing.assert_array_equal(state[unused], arrays[0][unused])


def near(got, want, tolerance):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want)


def test_decode_steps_and_other_sizes_go_by_tokens():
    rows = make_rows([64, 64])

    def takes(T=128, S=128, dtype=jnp.bfloat16, rows=rows, matrix=None):
        state, values = jnp.zeros((1, 1, 64, S)), jnp.zeros((T, 1, 64), dtype)
        return takes_chunks(state, values, rows, matrix)

    assert takes()
    assert not takes(T=56)
    assert not takes(T=132)
    assert not takes(S=16)
    assert not takes(dtype=jnp.float32)
    assert not takes(rows=make_rows([1] * 128))
    assert not takes(matrix=jnp.zeros((1, 64, 128)))


def test_convolution_equals_reference():
    rng = np.random.default_rng(0)
    rows = make_rows([1, 0, 2, 1], fresh={0})
    state = jnp.asarray(rng.standard_normal((5, 3, 256)), jnp.float32)
    state = state.at[rows.slots[0]].set(jnp.nan)  # fresh: not to be read
    x, weight = (jnp.asarray(rng.standard_normal((n, 256)), jnp.float32) for n in (5, 4))
    got = mosaic_conv(x, weight, state, rows, interpret=True)
    check(got, causal_conv_reference(x, weight, state, rows), rows)


def test_convolution_of_prompts_and_odd_channels_is_xlas():
    rows = make_rows([1, 1])
    assert takes_conv(jnp.zeros((2, 768)), rows)
    assert not takes_conv(jnp.zeros((3, 768)), rows)
    assert not takes_conv(jnp.zeros((2, 128)), rows)


@pytest.mark.parametrize(
    "shape, limit", [((2, 1, 40, 16), "a multiple of 64, not 40"), ((2, 1, 64, 20), "not 20")]
)
def test_refuses_by_name(shape, limit):
    zeros = jnp.zeros((1, 1, 16))
    with pytest.raises(KernelError, match=limit):
        check_limits(jnp.zeros(shape), zeros, zeros)
