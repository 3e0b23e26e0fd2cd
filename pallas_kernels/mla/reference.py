"""The specification of latent attention over pages, in plain jnp.

Source: DeepSeek-V2, arXiv 2405.04434, with the up-projections of keys and values absorbed into the
queries and the output: a head's query is as wide as a latent, and so is what it attends to.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from pallas_kernels.attention.reference import MASKED, attention_reference


def mla_reference(
    q: Float[Array, "T N H"],
    latent_pages: Float[Array, "P S H"],
    page_table: Int32[Array, "B MP"],
    row: Int32[Array, " T"],
    positions: Int32[Array, " T"],
    *,
    scale: float,
    value_dim: int,
) -> Float[Array, "T N V"]:
    """Token t over the latents of its row up to its position; their first `value_dim` entries are
    what is summed, the others (the rotary key) count in the scores only."""
    pages = latent_pages[:, None]
    out = attention_reference(q, pages, pages, page_table, row, positions, scale=scale)
    return out[..., :value_dim]


def mla_sparse_reference(
    q: Float[Array, "T N H"],
    latent_pages: Float[Array, "P S H"],
    index_q: Float[Array, "T I E"],
    index_weights: Float[Array, "T I"],
    index_pages: Float[Array, "P S E"],
    page_table: Int32[Array, "B MP"],
    row: Int32[Array, " T"],
    positions: Int32[Array, " T"],
    *,
    top: int,
    scale: float,
    value_dim: int,
) -> Float[Array, "T N V"]:
    """The same, over the `top` latents that score highest: by the index keys at their places, the
    sum over i of weights_i relu(q_i . key).

    Source: DeepSeek-V3.2, arXiv 2512.02556, section 2.1.
    """
    T, slots = positions.shape[0], page_table.shape[1] * latent_pages.shape[1]
    keys = index_pages[page_table[row]].reshape(T, slots, -1)
    latents = latent_pages[page_table[row]].reshape(T, slots, -1)
    slot = jnp.arange(slots)
    causal = slot <= positions[:, None]  # [T, slots]
    found = jax.nn.relu(jnp.einsum("tie,tje->tij", index_q, keys))
    found = jnp.where(causal, jnp.einsum("tij,ti->tj", found, index_weights), -jnp.inf)
    rank = jnp.argsort(jnp.argsort(-found, axis=1, stable=True), axis=1)
    seen = causal & (rank < top)
    latents = jnp.where(seen[..., None], latents, 0.0)  # what is not seen may be NaN
    scores = jnp.einsum("tnh,tjh->tnj", q, latents) * scale
    weights = jax.nn.softmax(jnp.where(seen[:, None], scores, MASKED), axis=-1)
    return jnp.einsum("tnj,tjv->tnv", weights, latents[..., :value_dim])
