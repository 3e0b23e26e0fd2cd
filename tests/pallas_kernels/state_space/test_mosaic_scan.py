"""The scans for Hopper equal the specification, in Mosaic's interpreter, without races.

Chunks round what they multiply to 16 bits, so that theirs is compared in norm.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pallas_kernels.errors import KernelError
from pallas_kernels.state_space.reference import causal_conv_reference, ssm_scan_reference

if jax.__version_info__ < (0, 11):
    pytest.skip("Mosaic's interpreter needs JAX 0.11 for this kernel", allow_module_level=True)
pytest.importorskip("absl", reason="Mosaic GPU needs absl-py")

from pallas_kernels.state_space.mosaic_chunks import FEW, mosaic_chunks, takes_chunks
from pallas_kernels.state_space.mosaic_conv import mosaic_conv, takes_conv
from pallas_kernels.state_space.mosaic_scan import check_limits, mosaic_scan
from pallas_kernels.state_space.mosaic_selective import check_selective, mosaic_selective
from pallas_kernels.state_space.ssm_scan import scan_on_hopper
from tests.pallas_kernels.state_space.test_state_space import (
    KINDS,
    check,
    conv_arrays,
    make_arrays,
    make_rows,
    pool_size,
)


@pytest.mark.parametrize("kind", ["mamba-2", "delta"])
@pytest.mark.parametrize("after", [(), (5, 0, 1, 33)])
def test_tokens_equal_reference(kind, after):
    rows = make_rows([19, 0, 1, 33], {1, 3}, after)
    arrays, extra = make_arrays(kind, rows, 56)
    got = mosaic_scan(*arrays, rows, interpret=True, **extra)
    check(got, ssm_scan_reference(*arrays, rows, **extra), rows)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("after", [(), (5, 0, 1, 32)])
def test_tokens_with_decays_of_their_own_equal_reference(dtype, after):
    """In 16 bits whole chunks are unrolled; the last row's last chunk begins before its tokens."""
    rows = make_rows([19, 0, 1, 33], {1, 3}, after)
    (state, v, k, q, rates), extra = make_arrays("mamba-1", rows, 53)
    arrays = state, *(x.astype(dtype) for x in (v, k, q)), rates
    y, state = mosaic_selective(*arrays, extra["matrix"], rows, interpret=True)
    want_y, want_state = ssm_scan_reference(*arrays, rows, **extra)
    near(y[:53], want_y[:53], 1e-6 if dtype == jnp.float32 else 1e-3)
    np.testing.assert_allclose(state, want_state, atol=1e-4)


def test_a_decode_step_fetches_no_more_than_its_tokens():
    rows = make_rows([1, 1, 0], {1}, (1, 0, 0))
    for kind in KINDS:
        arrays, extra = make_arrays(kind, rows, 2)
        got = scan_on_hopper(*arrays, rows, interpret=True, **extra)
        check(got, ssm_scan_reference(*arrays, rows, **extra), rows)


def chunk_arrays(counts, padding, N, S, J, alike, Z, seed=0):
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
    return (normal(Z, N, 64, S), v, k, q, rates), beta


CHUNKS = {  # rows, padding, snapshots, (heads, state size, keys), beta, how alike keys are
    "ends of tiles, short rows": ([70, FEW, FEW + 1, 3, 0, 1, 45], 0, (), (1, 64, 1), False, 0),
    "padding, wide state": ([20, 0, 60], 8, (), (1, 256, 1), False, 0),
    "delta": ([70, 0, 1, 59, 64], 6, (), (2, 64, 1), True, 0),
    "delta, keys alike": ([64], 0, (), (1, 128, 1), True, 1),
    "snapshots": ([70, 30, 3, 97], 0, (66, 30, 2, 28), (1, 64, 1), False, 0),
    "snapshots, delta": ([70, 66, 64], 0, (10, 0, 56), (1, 64, 1), True, 0),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_chunks_equal_reference(name):
    counts, padding, after, sizes, delta, alike = CHUNKS[name]
    check_chunks(make_rows(counts, {2}, after), padding, sizes, delta, alike)


lengths = st.integers(0, 45).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


@settings(max_examples=2, deadline=None, derandomize=True)
@given(st.lists(lengths, min_size=2, max_size=3), st.booleans())
def test_chunks_of_rows_of_any_length(rows, delta):
    counts, after = map(list, zip(*rows, strict=True))
    padding = -sum(counts) % 8 if sum(counts) > 64 else 72 - sum(counts)
    check_chunks(make_rows(counts, {1}, after), padding, (1, 64, 1), delta, 0)


def check_chunks(rows, padding, sizes, delta, alike):
    counts = np.asarray(rows.length).tolist()
    arrays, beta = chunk_arrays(counts, padding, *sizes, alike, pool_size(rows))
    extra = {"beta": beta} if delta else {}
    y, state = mosaic_chunks(*arrays, rows, interpret=True, **extra)
    want_y, want_state = ssm_scan_reference(*arrays, rows, **extra)
    written = set()
    for b in range(len(counts)):
        part = slice(int(rows.first[b]), int(rows.first[b] + rows.length[b]))
        near(y[part], want_y[part], 0.006)
        if counts[b]:
            written.add(int(rows.slots[b]))
        if rows.snapshots and rows.snapshots.after[b]:
            written.add(int(rows.snapshots.slots[b]))
    for slot in range(pool_size(rows)):
        if slot in written:
            near(state[slot], want_state[slot], 0.006)
        else:
            np.testing.assert_array_equal(state[slot], arrays[0][slot])


def near(got, want, tolerance):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want)


def test_decode_steps_and_other_sizes_go_by_tokens():
    rows = make_rows([64, 64])

    def takes(T=128, S=128, dtype=jnp.bfloat16, rows=rows):
        state, values = jnp.zeros((1, 1, 64, S)), jnp.zeros((T, 1, 64), dtype)
        return takes_chunks(state, values, rows)

    assert takes()
    assert not takes(T=56)
    assert not takes(S=16)
    assert not takes(dtype=jnp.float32)
    assert not takes(rows=make_rows([1] * 128))


@pytest.mark.parametrize("after", [(), (1, 0, 1, 1)])
def test_convolution_equals_reference(after):
    rows = make_rows([1, 0, 2, 1], {0}, after)
    arrays = conv_arrays(rows, 5, 4, 256)
    got = mosaic_conv(*arrays, rows, interpret=True)
    check(got, causal_conv_reference(*arrays, rows), rows)


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
    for check_sizes in (check_limits, check_selective):
        with pytest.raises(KernelError, match=limit):
            check_sizes(jnp.zeros(shape), zeros, zeros)


def test_many_tokens_that_are_no_multiple_of_8_are_refused():
    """By Mamba-2's and the delta rule's kernel, in chunks; others take any number."""
    rows = make_rows([64, 68])
    state, zeros = jnp.zeros((3, 1, 64, 128)), jnp.zeros((132, 1, 64), jnp.bfloat16)
    with pytest.raises(KernelError, match="a multiple of 8 tokens, not 132"):
        takes_chunks(state, zeros, rows)
