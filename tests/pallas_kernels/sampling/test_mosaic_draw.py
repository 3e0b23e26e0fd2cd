"""The Hopper kernel chooses the specification's tokens, in Mosaic's interpreter, without races."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.sampling.reference import draw_reference, log_weights
from tests.pallas_kernels.sampling.rows import draw_rows

if jax.__version_info__ < (0, 11):
    pytest.skip("Mosaic's interpreter needs JAX 0.11 for this kernel", allow_module_level=True)
pytest.importorskip("absl", reason="Mosaic GPU needs absl-py")

from pallas_kernels.sampling.mosaic_draw import mosaic_draw

V = 1088  # 17 lines: the second block's part overlaps the first's


def both(logits, rows, counts=None, **how):
    counts = np.zeros((1, logits.shape[1])) if counts is None else counts
    counts, logits = jnp.asarray(counts, jnp.int32), jnp.asarray(logits, jnp.float32)
    got = mosaic_draw(logits, counts, rows, **({"blocks": 2, "chunk": 2} | how), interpret=True)
    finite = jnp.nan_to_num(logits, nan=-jnp.inf, posinf=jnp.inf, neginf=-jnp.inf)
    return np.asarray(got), np.asarray(draw_reference(finite, counts, rows))


def test_options_and_their_mixes():
    rng = np.random.default_rng(0)
    counts = rng.choice([0, 0, 1, 3, 1 << 30, (1 << 30) + 2], (4, V))
    rows = draw_rows(
        {"temperature": 0.0, "slot": 2, "presence": 2.0, "repetition": 2.0},
        {"top_k": 7},
        {"top_p": 0.8, "temperature": 0.5},
        {"top_k": 40, "top_p": 0.9, "min_p": 0.01, "slot": 3, "frequency": 0.5},
        {"min_p": 0.2, "temperature": 2.0},
    )
    got, want = both(rng.normal(0, 3, (5, V)), rows, counts)
    np.testing.assert_array_equal(got, want)


def test_ties_at_every_threshold():
    """Logits of few values: a threshold has many equals, in both blocks."""
    logits = np.random.default_rng(1).normal(0, 2, (4, V)).round()
    rows = draw_rows({"top_k": 3}, {"top_p": 0.5}, {"top_k": 1, "top_p": 0.1}, {"temperature": 0.0})
    got, want = both(logits, rows)
    np.testing.assert_array_equal(got, want)


def test_what_is_not_finite():
    logits = np.random.default_rng(2).normal(0, 2, (6, V))
    logits[0] = -np.inf
    logits[1, 5:] = -np.inf  # fewer than k are left
    logits[2, 3] = np.nan
    logits[3, 900] = np.inf
    logits[4, :] = -3e38
    logits[5, ::2] = -np.inf
    rows = draw_rows(
        {}, {"top_k": 9, "top_p": 0.9}, {"temperature": 0.0}, {"top_p": 0.9}, {"top_k": 2},
        {"top_k": 5, "top_p": 0.99},
    )  # fmt: skip
    got, want = both(logits, rows)
    np.testing.assert_array_equal(got, want)
    assert got[0] == 0 and got[3] == 900


def test_frequencies_follow_the_distribution():
    """80 positions of one seed; the bound is six deviations of chi-square, and all is fixed."""
    num_draws, ids = 80, [3, 100, 260, 300, 511]
    logits = np.full((num_draws, 512), -np.inf)
    logits[:, ids] = [1.0, 0.5, 0.0, 1.5, -0.5]
    rows = draw_rows(*[{"temperature": 2.0}] * num_draws)
    got, want = both(logits, rows, blocks=1)
    np.testing.assert_array_equal(got, want)
    row = jnp.asarray(logits[:1], jnp.float32)
    expected = num_draws * jax.nn.softmax(log_weights(row, draw_rows({"temperature": 2.0}))[0])
    seen = np.bincount(got, minlength=512)
    assert seen.sum() == seen[ids].sum() == num_draws
    chi_square = float(np.sum((seen - expected)[np.array(ids)] ** 2 / expected[np.array(ids)]))
    assert chi_square < 4 + 6 * np.sqrt(2 * 4)
