"""The specification of paged attention, in plain jnp: every kernel must equal this function.

It gathers every slot that a row could own for every token, so it is for tests and reading only.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

MASKED = -1e30  # finite, so that a row of nothing but masked scores is no NaN


def attention_reference(
    q: Float[Array, "T N H"],
    k_pages: Float[Array, "P K S H"],
    v_pages: Float[Array, "P K S H"],
    page_table: Int32[Array, "B MP"],
    row: Int32[Array, " T"],
    positions: Int32[Array, " T"],
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Float[Array, " N"] | None = None,
) -> Float[Array, "T N H"]:
    """Softmax(cap(scale q.k) + mask) v, token t over the slots of its row up to its position.

    Position j of row b lies in page `page_table[b, j // S]`, slot `j % S`. A query at position p
    sees j in (p - window, p]; `softcap` c turns a score s into c tanh(s / c) before the mask. A
    head's sink is a score of no key: it takes its share of the weights, and gives nothing.

    Source of sinks: arXiv 2309.17453, as learned in gpt-oss.
    """
    T, N, H = q.shape
    K, S = k_pages.shape[1:3]
    slots = page_table.shape[1] * S
    tables = page_table[row]  # [T, MP]
    wide = jnp.promote_types(q.dtype, jnp.float32)
    keys = k_pages[tables].transpose(0, 2, 1, 3, 4).reshape(T, K, slots, H).astype(wide)
    values = v_pages[tables].transpose(0, 2, 1, 3, 4).reshape(T, K, slots, H).astype(wide)
    queries = q.reshape(T, K, N // K, H).astype(wide)
    scores = jnp.einsum("tkgh,tkjh->tkgj", queries, keys) * scale  # [T, K, G, slots]
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    seen = visible(positions[:, None], jnp.arange(slots), window)  # [T, slots]
    values = jnp.where(seen[:, None, :, None], values, 0.0)  # what is not seen may be NaN
    scores = jnp.where(seen[:, None, None], scores, MASKED)
    if sinks is not None:
        sink = jnp.broadcast_to(sinks.reshape(K, N // K, 1), (T, K, N // K, 1))
        scores = jnp.concatenate([scores, sink.astype(scores.dtype)], axis=-1)
    weights = jax.nn.softmax(scores, axis=-1)[..., :slots]
    return jnp.einsum("tkgj,tkjh->tkgh", weights, values).reshape(T, N, H).astype(q.dtype)


def visible(query: Int32[Array, "..."], key: Int32[Array, "..."], window: int | None) -> Array:
    """Whether the query at one position sees the key at another.

    window 2:   key  0 1 2 3        window None:  key  0 1 2 3
    query 2          . x x .        query 2            x x x .
    """
    causal = key <= query
    return causal if window is None else causal & (key > query - window)
