"""Log-probabilities of the model's own distribution, before any sampling option."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int32

from engine.sampling_params import MAX_LOGPROBS

_FLOAT = np.finfo(np.float32)


class Logprobs(NamedTuple):
    """Column 0 is the chosen token, columns 1.. the MAX_LOGPROBS likeliest in order.

    A vocabulary smaller than that leaves the last columns -inf, with id 0.
    """

    values: Float32[Array, "B C"]
    ids: Int32[Array, "B C"]
    ranks: Int32[Array, " B"]  # of the chosen token: 1 + the number of likelier ones


def no_logprobs(num_rows: int) -> Logprobs:
    """What a step returns in which nobody asked."""
    shape = (num_rows, 1 + MAX_LOGPROBS)
    return Logprobs(
        jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.int32), jnp.zeros(num_rows, jnp.int32)
    )


def compute_logprobs(logits: Float32[Array, "B V"], tokens: Int32[Array, " B"]) -> Logprobs:
    """Log-softmax at the chosen tokens and at the likeliest; never NaN, -inf where a logit is."""
    top = jnp.clip(jnp.max(logits, axis=1), _FLOAT.min, _FLOAT.max)[:, None]
    total = jnp.sum(jnp.exp(jnp.minimum(logits - top, 0.0)), axis=1, keepdims=True)
    log_total = jnp.log(jnp.maximum(total, _FLOAT.tiny))
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=1)
    missing = max(0, MAX_LOGPROBS - logits.shape[1])
    likeliest, likeliest_ids = lax.top_k(logits, MAX_LOGPROBS - missing)
    padding = ((0, 0), (0, missing))
    likeliest = jnp.pad(likeliest, padding, constant_values=-jnp.inf)
    likeliest_ids = jnp.pad(likeliest_ids, padding)
    raw = jnp.concatenate([chosen, likeliest], axis=1)
    return Logprobs(
        values=jnp.minimum(raw - top, 0.0) - log_total,
        ids=jnp.concatenate([tokens[:, None], likeliest_ids], axis=1),
        ranks=1 + jnp.sum(logits > chosen, axis=1, dtype=jnp.int32),
    )
