"""Which experts a token goes to, and how much each counts. XLA makes of it few launches: k <= 16
of `lax.top_k` is one kernel, the rest fuses."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32, Int32


def route(
    logits: Float[Array, "T E"],
    k: int,
    *,
    score: Literal["softmax", "sigmoid"] = "softmax",
    renormalize: bool = True,
    bias: Float[Array, " E"] | None = None,
    groups: int = 1,
    kept_groups: int = 1,
    best_in_group: int = 2,
    scale: float = 1.0,
) -> tuple[Float32[Array, "T k"], Int32[Array, "T k"]]:
    """Weights and experts of each token, the best first.

    softmax   over all; renormalised it is that of the chosen ones (Mixtral, Qwen 3, gpt-oss)
    sigmoid   of each by itself (DeepSeek-V3)

    `bias` counts in the choice only. Of `groups` of experts, those `kept_groups` are chosen from
    whose `best_in_group` best sum highest. `renormalize` makes a token's weights sum to 1 before
    `scale`.
    """
    logits = logits.astype(jnp.float32)
    scores = jax.nn.softmax(logits, -1) if score == "softmax" else jax.nn.sigmoid(logits)
    ranked = scores if bias is None else scores + bias
    if kept_groups < groups:
        ranked = _keep_groups(ranked, groups, kept_groups, best_in_group)
    _, chosen = lax.top_k(ranked, k)
    weights = jnp.take_along_axis(scores, chosen, axis=-1)
    if renormalize:
        weights = weights / weights.sum(-1, keepdims=True)
    return weights * scale, chosen.astype(jnp.int32)


def _keep_groups(
    ranked: Float32[Array, "T E"], groups: int, kept_groups: int, best: int
) -> Float32[Array, "T E"]:
    """-inf outside of the best groups. Source: DeepSeek-V2 and V3, arXiv 2405.04434, 2412.19437."""
    T, E = ranked.shape
    grouped = ranked.reshape(T, groups, E // groups)
    _, kept = lax.top_k(lax.top_k(grouped, best)[0].sum(-1), kept_groups)
    alive = (kept[:, :, None] == jnp.arange(groups)).any(1)  # [T, groups]
    return jnp.where(alive[:, :, None], grouped, -jnp.inf).reshape(T, E)
