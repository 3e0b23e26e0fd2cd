"""Drawing as the CPU does it equals the specification; the specification is what it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pallas_kernels import draw
from pallas_kernels.dispatch import Backend
from pallas_kernels.errors import KernelError
from pallas_kernels.sampling.limits import check_vocabulary, lines_of_block
from pallas_kernels.sampling.reference import draw_reference, log_weights
from pallas_kernels.sampling.rows import pack_rows, unpack_rows
from tests.pallas_kernels.sampling.rows import draw_rows

V = 50
draw_jit = jax.jit(lambda *arrays: draw(*arrays, backend=Backend.XLA))
options = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.5, 2.0]),
        "top_p": st.sampled_from([1.0, 0.9, 0.3, 1e-6]),
        "min_p": st.sampled_from([0.0, 0.02, 1.0]),
        "top_k": st.sampled_from([0, 1, 4, V, 1000]),
        "presence": st.sampled_from([0.0, 1.5]),
        "frequency": st.sampled_from([0.0, -0.25]),
        "repetition": st.sampled_from([1.0, 1.25]),
        "slot": st.integers(0, 3),
        "seed_low": st.integers(0, 2**32 - 1),
    }
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(options, min_size=4, max_size=4), st.integers(0, 2**32 - 1))
def test_any_options_choose_the_tokens_of_the_reference(rows, seed):
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(rng.normal(0, 16, (4, V)).round() / 8, jnp.float32)  # with many ties
    counts = jnp.asarray(rng.choice([0, 0, 1, 3, 1 << 30, (1 << 30) + 2], (4, V)), jnp.int32)
    arguments = (logits, counts, draw_rows(*rows))
    np.testing.assert_array_equal(draw_jit(*arguments), draw_reference(*arguments))


def test_the_reference_takes_the_noise_it_is_given():
    logits = jnp.zeros((2, V)).at[0, 7].set(1.0)
    noise = jnp.zeros((2, V)).at[1, 9].set(1.0)
    tokens = draw_reference(logits, jnp.zeros((1, V), jnp.int32), draw_rows({}, {}), noise)
    assert tokens.tolist() == [7, 9]


def test_filters_follow_each_other():
    probability = np.array([0.4, 0.3, 0.2, 0.1])
    logits = jnp.log(jnp.asarray([probability] * 5, jnp.float32))
    rows = draw_rows(
        {"top_p": 0.55}, {"top_p": 0.55, "top_k": 2}, {"top_p": 0.9, "min_p": 0.4},
        {"min_p": 0.6}, {"top_k": 3},
    )  # fmt: skip
    kept = np.isfinite(log_weights(logits, rows)).sum(axis=1)
    assert kept.tolist() == [2, 1, 3, 2, 3]


def test_packing_keeps_every_bit():
    rows = draw_rows({"min_p": 1e-45, "seed_low": 2**32 - 1, "top_k": 2**31 - 1}, {})
    for field, again in zip(rows, unpack_rows(pack_rows(rows)), strict=True):
        assert field.dtype == again.dtype
        np.testing.assert_array_equal(field, again)


@pytest.mark.parametrize(
    "V, limit", [(50257, "multiple of 64"), (256, "least 4096"), (2**20, "most")]
)
def test_a_vocabulary_that_no_cluster_holds_is_refused(V, limit):
    with pytest.raises(KernelError, match=limit):
        check_vocabulary(V, 1)


def test_a_vocabulary_is_divided_among_devices():
    check_vocabulary(128256, 8)
    with pytest.raises(KernelError, match="that 7 devices divide, not 128256"):
        check_vocabulary(128256, 7)


@pytest.mark.parametrize("V", [4096, 32000, 128256, 151936, 152064, 201088, 262208])
def test_a_cluster_holds_every_token(V):
    assert 8 * 64 * lines_of_block(V) >= V
