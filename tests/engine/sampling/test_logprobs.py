"""Log-probabilities and ranks against float64."""

import jax
import jax.numpy as jnp
import numpy as np

from engine.sampling.logprobs import _likeliest_in_two, compute_logprobs, no_logprobs
from engine.sampling.params import MAX_LOGPROBS


@jax.jit
def logprobs_jit(logits, tokens):
    return compute_logprobs(logits, tokens, jnp.zeros((len(tokens), 2), jnp.int32))


def test_the_chosen_token_and_the_likeliest_in_order() -> None:
    logits = np.random.default_rng(0).normal(0, 4, (3, 50)).astype(np.float32)
    tokens = np.array([0, 49, 7], np.int32)
    found = logprobs_jit(logits, tokens)
    exact = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
    order = np.argsort(-logits, axis=1)[:, :MAX_LOGPROBS]
    np.testing.assert_array_equal(found.ids, np.concatenate([tokens[:, None], order], axis=1))
    expected = np.take_along_axis(exact, np.asarray(found.ids), axis=1)
    np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-5)
    ranks = [1 + int((row > row[token]).sum()) for row, token in zip(logits, tokens, strict=True)]
    assert found.ranks.tolist() == ranks


def test_those_that_are_named_are_of_the_same_distribution() -> None:
    logits = np.random.default_rng(2).normal(0, 4, (2, 50)).astype(np.float32)
    logits[1, 7] = -np.inf
    ids = np.array([[49, 0, 50], [7, 3, 50]], np.int32)  # 50 is unused
    found = jax.jit(compute_logprobs)(logits, np.array([1, 2], np.int32), ids)
    exact = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
    expected = np.take_along_axis(exact, ids[:, :2], axis=1)
    np.testing.assert_allclose(found.scored[:, :2], expected, rtol=1e-5, atol=1e-5)


def test_equals_share_a_rank_and_banned_tokens_are_minus_infinity() -> None:
    logits = np.full((1, 30), -np.inf, np.float32)
    logits[0, [4, 5]] = 1.0
    found = logprobs_jit(logits, np.array([5], np.int32))
    assert int(found.ranks[0]) == 1
    np.testing.assert_allclose(found.values[0, :3], np.log(0.5), rtol=1e-6)
    assert np.all(np.asarray(found.values[0, 3:]) == -np.inf)


def test_a_small_vocabulary_is_padded() -> None:
    found = logprobs_jit(np.zeros((2, 3), np.float32), np.array([1, 2], np.int32))
    assert found.values.shape == no_logprobs(2).values.shape == (2, 1 + MAX_LOGPROBS)
    np.testing.assert_allclose(found.values[:, :4], np.log(1 / 3), rtol=1e-6)
    assert np.all(np.asarray(found.values[:, 4:]) == -np.inf)


def test_the_two_stages_of_gpus_find_what_one_finds() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (5, 70)).astype(np.float32)
    logits[1] = np.round(logits[1])  # equals on both sides of the 16th
    logits[2] = 0.0
    logits[3, 10:] = -np.inf
    logits[4, 18:] = -np.inf
    values, ids = jax.jit(_likeliest_in_two, static_argnums=1)(logits, MAX_LOGPROBS)
    expected, expected_ids = jax.lax.top_k(logits, MAX_LOGPROBS)
    np.testing.assert_array_equal(values, expected)
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(np.asarray(ids)[finite], np.asarray(expected_ids)[finite])
    assert all(len(set(row)) == MAX_LOGPROBS for row in ids.tolist())
