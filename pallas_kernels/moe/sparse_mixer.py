"""Phi-3.5-MoE's choice of experts: one after the other, each against its rivals only."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32


def sparse_mixer(
    logits: Float[Array, "T E"], k: int, rivals: float
) -> tuple[Float32[Array, "T k"], Int32[Array, "T k"]]:
    """Weights and experts of each token, the best first. The weights do not sum to 1.

    An expert's weight is its share in a softmax over the experts not chosen before it whose logits
    s have (best - s) / max(|s|, best) <= `rivals`. Source: SparseMixer-v2, arXiv 2409.12136, and
    Phi-3.5-MoE's published model code, which has k = 2.
    """
    logits = logits.astype(jnp.float32)
    left, weights, chosen = logits, [], []
    for _ in range(k):
        best = left.max(-1, keepdims=True)  # [T, 1]
        one = left.argmax(-1, keepdims=True)
        far = (best - logits) / jnp.maximum(jnp.abs(logits), best) > rivals
        shares = jax.nn.softmax(jnp.where(far, -jnp.inf, left), axis=-1)
        weights.append(jnp.take_along_axis(shares, one, axis=-1))
        chosen.append(one)
        left = jnp.where(jnp.arange(logits.shape[-1]) == one, -jnp.inf, left)
    return jnp.concatenate(weights, -1), jnp.concatenate(chosen, -1).astype(jnp.int32)
