"""Thresholds without sorting: exactly those that sorting finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engine.sampling.options import sampling_row, unpack_rows
from engine.sampling.params import SamplingParams
from engine.sampling.sampler import draw_rows
from pallas_kernels.sampling.filters import filtered

V = 33


@jax.jit
def filtered_jit(logits, packed, wanted):
    unused = jnp.zeros(len(wanted), jnp.int32)
    return filtered(logits, draw_rows(unpack_rows(packed), unused, unused), wanted)


normal_floats = st.floats(width=32, allow_nan=False, allow_subnormal=False)


def kept(logits, **options) -> np.ndarray:
    """The ids that may be drawn from one row."""
    row = sampling_row(SamplingParams(**options), seed=0, prompt_len=1)
    logits = np.asarray(logits, np.float32)[None]
    result = np.asarray(filtered_jit(logits, row[:, None], np.array([True])))[0]
    assert not np.isnan(result).any()
    return np.flatnonzero(result > -np.inf)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(arrays.arrays(np.float32, V, elements=normal_floats), st.integers(1, V + 5))
def test_top_k_keeps_what_is_at_least_the_kth_largest(logits, k) -> None:
    kth = np.sort(logits)[::-1][min(k, V) - 1]
    with np.errstate(over="ignore"):
        may_be_drawn = logits - np.clip(logits.max(), -3e38, 3e38) > -np.inf
    expected = (logits >= kth) & may_be_drawn  # the farthest tokens have probability 0 already
    assert set(kept(logits, top_k=k)) <= set(np.flatnonzero(logits >= kth))
    assert set(np.flatnonzero(expected)) <= set(kept(logits, top_k=k, temperature=100))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 1.0), st.sampled_from([0.3, 1.0, 3.0]))
def test_top_p_keeps_the_smallest_set_that_reaches_p(noise, p, spread) -> None:
    logits = np.random.default_rng(noise).normal(0, spread, V).astype(np.float32)
    probability = np.exp(logits.astype(np.float64))
    probability /= probability.sum()
    found = kept(logits, top_p=p)
    mass = probability[found].sum()
    assert mass >= p - 1e-6
    assert mass - probability[found].min() < p + 1e-6
    assert probability[found].min() >= np.delete(probability, found).max(initial=0)


def test_ties_at_a_threshold_are_all_kept() -> None:
    logits = np.full(V, -50.0)
    logits[[3, 8, 20, 21]] = [2.0, 1.0, 1.0, 1.0]
    assert list(kept(logits, top_k=2)) == [3, 8, 20, 21]
    assert list(kept(logits, top_p=0.6)) == [3, 8, 20, 21]
    assert list(kept(logits, top_p=0.4)) == [3]
    assert len(kept(np.zeros(V), top_k=1)) == V


@pytest.mark.parametrize("p", [1e-300, 1e-9])
def test_the_likeliest_token_is_always_kept(p) -> None:
    logits = np.linspace(-1, 1, V)
    assert list(kept(logits, top_p=p)) == [V - 1]
    assert list(kept(logits, min_p=1.0)) == [V - 1]
    assert list(kept(logits, top_k=1)) == [V - 1]


def test_neighbouring_floats_are_told_apart() -> None:
    logits = np.full(V, -1.0, np.float32)
    logits[4], logits[9] = 1.0, np.nextafter(np.float32(1.0), np.float32(2.0))
    assert list(kept(logits, top_k=1)) == [9]
    assert list(kept(-logits, top_k=V - 1)) == [i for i in range(V) if i != 9]


def test_top_p_counts_the_probability_that_top_k_leaves() -> None:
    logits = np.full(V, -50.0)
    logits[:4] = np.log([0.4, 0.3, 0.2, 0.1])
    assert list(kept(logits, top_p=0.65)) == [0, 1]
    assert list(kept(logits, top_p=0.65, top_k=3)) == [0, 1]
    assert list(kept(logits, top_p=0.55, top_k=2)) == [0]  # 0.4 of 0.7
    assert list(kept(logits, top_p=0.55)) == [0, 1]
    assert list(kept(logits, top_p=0.9, min_p=0.5)) == [0, 1, 2]  # 0.7 of 0.9


def test_rows_that_are_not_wanted_filter_nothing_of_others() -> None:
    """A greedy row beside one with top-k: each keeps its own options."""
    rows = [
        sampling_row(SamplingParams(**options), seed=0, prompt_len=1)
        for options in ({"temperature": 0, "top_k": 1}, {"top_k": 2}, {"top_p": 0.1}, {})
    ]
    logits = np.tile(np.linspace(0, 1, V, dtype=np.float32), (4, 1))
    logits[:, 0] = -60  # too unlikely to change a float32 sum
    wanted = np.array([False, True, True, True])
    result = np.asarray(filtered_jit(logits, np.stack(rows, 1), wanted))
    assert (result > -np.inf).sum(axis=1).tolist()[1:] == [2, 3, V]
