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
    score: Literal["softmax", "sigmoid", "softmax_of_chosen"] = "softmax",
    renormalize: bool = True,
    bias: Float[Array, " E"] | None = None,
    scale: float = 1.0,
) -> tuple[Float32[Array, "T k"], Int32[Array, "T k"]]:
    """Weights and experts of each token, the best first.

    softmax            over all experts, then the k best (Mixtral, Qwen 3)
    softmax_of_chosen  the k best, then over those (gpt-oss)
    sigmoid            of each by itself (DeepSeek-V3); `bias` counts in the choice only

    `renormalize` makes the weights of a token sum to 1 before `scale`.
    """
    logits = logits.astype(jnp.float32)
    scores = {
        "softmax": lambda: jax.nn.softmax(logits, axis=-1),
        "softmax_of_chosen": lambda: logits,
        "sigmoid": lambda: jax.nn.sigmoid(logits),
    }[score]()
    ranked = scores if bias is None else scores + bias
    _, chosen = lax.top_k(ranked, k)
    weights = jnp.take_along_axis(scores, chosen, axis=-1)
    if score == "softmax_of_chosen":
        weights = jax.nn.softmax(weights, axis=-1)
    elif renormalize:
        weights = weights / weights.sum(-1, keepdims=True)
    return weights * scale, chosen.astype(jnp.int32)
