"""Log-probabilities of a distribution: the model's own, or the one that is drawn from."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32

from engine.sampling.params import MAX_LOGPROB_TOKEN_IDS, MAX_LOGPROBS

_FLOAT = np.finfo(np.float32)
_MOST_AT_ONCE = 16


class Logprobs(NamedTuple):
    """Column 0 is the chosen token, columns 1.. the MAX_LOGPROBS likeliest in order.

    A vocabulary smaller than that leaves the last columns -inf, with id 0.
    """

    values: Float32[Array, "B C"]
    ids: Int32[Array, "B C"]
    ranks: Int32[Array, " B"]  # of the chosen token: 1 + the number of likelier ones
    scored: Float32[Array, "B S"]  # of the tokens that the request names


def no_logprobs(num_rows: int) -> Logprobs:
    """What a step returns in which nobody asked."""
    shape = (num_rows, 1 + MAX_LOGPROBS)
    return Logprobs(
        jnp.zeros(shape, jnp.float32),
        jnp.zeros(shape, jnp.int32),
        jnp.zeros(num_rows, jnp.int32),
        jnp.zeros((num_rows, MAX_LOGPROB_TOKEN_IDS), jnp.float32),
    )


def compute_logprobs(
    logits: Float32[Array, "B V"], tokens: Int32[Array, " B"], scored_ids: Int32[Array, "B S"]
) -> Logprobs:
    """Log-softmax at the chosen tokens, at the likeliest and at those of `scored_ids`, which may
    lie beyond the vocabulary where nobody reads them; never NaN, -inf where a logit is."""
    top = jnp.clip(jnp.max(logits, axis=1), _FLOAT.min, _FLOAT.max)[:, None]
    total = jnp.sum(jnp.exp(jnp.minimum(logits - top, 0.0)), axis=1, keepdims=True)
    log_total = jnp.log(jnp.maximum(total, _FLOAT.tiny))
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=1)
    named = jnp.take_along_axis(logits, jnp.minimum(scored_ids, logits.shape[1] - 1), axis=1)
    missing = max(0, MAX_LOGPROBS - logits.shape[1])
    likeliest, likeliest_ids = _likeliest(logits, MAX_LOGPROBS - missing)
    padding = ((0, 0), (0, missing))
    likeliest = jnp.pad(likeliest, padding, constant_values=-jnp.inf)
    likeliest_ids = jnp.pad(likeliest_ids, padding)
    raw = jnp.concatenate([chosen, likeliest], axis=1)
    return Logprobs(
        values=jnp.minimum(raw - top, 0.0) - log_total,
        ids=jnp.concatenate([tokens[:, None], likeliest_ids], axis=1),
        ranks=1 + jnp.sum(logits > chosen, axis=1, dtype=jnp.int32),
        scored=jnp.minimum(named - top, 0.0) - log_total,
    )


def _likeliest(
    logits: Float32[Array, "B V"], count: int
) -> tuple[Float32[Array, "B N"], Int32[Array, "B N"]]:
    """The largest logits and their ids in order, of equals the first.

    For up to 16 XLA has a kernel on GPUs, for more it sorts the vocabulary in 21.
    """
    if count <= _MOST_AT_ONCE:
        values, ids = lax.top_k(logits, count)
    else:
        values, ids = lax.platform_dependent(
            logits,
            cpu=lambda x: tuple(lax.top_k(x, count)),
            default=lambda x: _likeliest_in_two(x, count),
        )
    return values, ids


def _likeliest_in_two(logits: Float32[Array, "B V"], count: int) -> tuple[Array, Array]:
    """The first 16, then the others among what comes after the 16th."""
    first, first_ids = lax.top_k(logits, _MOST_AT_ONCE)
    last, last_id = first[:, -1:], first_ids[:, -1:]
    ids = lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    after = (logits < last) | ((logits == last) & (ids > last_id))
    # above what is taken already, so that no token is found twice
    rest = jnp.where(after, jnp.maximum(logits, _FLOAT.min), -jnp.inf)
    others, other_ids = lax.top_k(rest, count - _MOST_AT_ONCE)
    others = jnp.where(others > _FLOAT.min, others, -jnp.inf)
    return (
        jnp.concatenate([first, others], axis=1),
        jnp.concatenate([first_ids, other_ids], axis=1),
    )
