"""The specification of paged attention, in plain jnp: every kernel must equal this function.

It gathers every slot that a row could own for every token, so it is for tests and reading only.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int32, Num, UInt32

MASKED = -1e30  # finite, so that a row of nothing but masked scores is no NaN


def attention_reference(
    q: Float[Array, "T N H"],
    k_pages: Num[Array, "P K S H"],
    v_pages: Num[Array, "P K S H"],
    page_table: Int32[Array, "B MP"],
    row: Int32[Array, " T"],
    positions: Int32[Array, " T"],
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Float[Array, " N"] | None = None,
    slopes: Float[Array, " N"] | None = None,
    k_scales: Float[Array, "P Ks S"] | None = None,
    v_scales: Float[Array, "P Ks S"] | None = None,
    tree_mask: UInt32[Array, " T"] | None = None,
    distance_bias: Float[Array, "N R"] | None = None,
) -> Float[Array, "T N H"]:
    """Softmax(cap(scale q.k) + mask) v, token t over the slots of its row up to its position.

    Position j of row b lies in page `page_table[b, j // S]`, slot `j % S`. A query at position p
    sees j in (p - window, p]; `softcap` c turns a score s into c tanh(s / c) before the mask. A
    head's sink is a score of no key: it takes its share of the weights, and gives nothing. With
    a head's slope m, m (j - p) is added to its scores behind the softcap. Pages of 8 bits come
    with a scale for each slot and head: what lies there, times that, is meant.
    With a `tree_mask`, tokens are drafts of which the first lies at `positions`: `visible_drafts`.
    A `distance_bias` is added to scores: entry min(d, R - 1) of a head where the key lies d back.

    Sources: of sinks arXiv 2309.17453, as learned in gpt-oss; of slopes ALiBi, arXiv 2108.12409.
    """
    T, N, H = q.shape
    K, S = k_pages.shape[1:3]
    slots = page_table.shape[1] * S
    tables = page_table[row]  # [T, MP]
    wide = jnp.promote_types(q.dtype, jnp.float32)
    keys, values = gather(k_pages, k_scales, tables, wide), gather(v_pages, v_scales, tables, wide)
    queries = q.reshape(T, K, N // K, H).astype(wide)
    scores = jnp.einsum("tkgh,tkjh->tkgj", queries, keys) * scale  # [T, K, G, slots]
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    slot = jnp.arange(slots)
    if slopes is not None:
        ago = (slot - positions[:, None]).astype(wide)  # [T, slots]
        scores = scores + slopes.astype(wide).reshape(K, N // K, 1) * ago[:, None, None]
    if distance_bias is not None:
        added = bias_of(distance_bias.astype(wide), positions[:, None] - slot)  # [N, T, slots]
        scores += added.swapaxes(0, 1).reshape(scores.shape)
    seen = visible(positions[:, None], slot, window)  # [T, slots]
    if tree_mask is not None:
        seen = visible_drafts(positions[:, None], tree_mask[:, None], slot, window)
    values = jnp.where(seen[:, None, :, None], values, 0.0)  # what is not seen may be NaN
    scores = jnp.where(seen[:, None, None], scores, MASKED)
    if sinks is not None:
        sink = jnp.broadcast_to(sinks.reshape(K, N // K, 1), (T, K, N // K, 1))
        scores = jnp.concatenate([scores, sink.astype(scores.dtype)], axis=-1)
    weights = jax.nn.softmax(scores, axis=-1)[..., :slots]
    return jnp.einsum("tkgj,tkjh->tkgh", weights, values).reshape(T, N, H).astype(q.dtype)


def gather(
    pages: Num[Array, "P K S H"],
    scales: Float[Array, "P Ks S"] | None,
    tables: Int32[Array, "T MP"],
    dtype: DTypeLike,
) -> Float[Array, "T K slots H"]:
    """Every slot of each table's pages, one after the other."""
    found = pages[tables].astype(dtype)  # [T, MP, K, S, H]
    if scales is not None:
        scales = scales[tables][:, :, : found.shape[2]]  # there may be more heads of them
        found = found * scales.astype(dtype)[..., None]
    T, MP, K, S, H = found.shape
    return found.swapaxes(1, 2).reshape(T, K, MP * S, H)


def bias_of(table: Float[Array, "N R"], back: Int32[Array, "..."]) -> Float[Array, "N ..."]:
    """What each head adds to the score of a key that lies so far `back`."""
    return table[:, jnp.clip(back, 0, table.shape[1] - 1)]


def visible(query: Int32[Array, "..."], key: Int32[Array, "..."], window: int | None) -> Array:
    """Whether the query at one position sees the key at another.

    window 2:   key  0 1 2 3        window None:  key  0 1 2 3
    query 2          . x x .        query 2            x x x .
    """
    causal = key <= query
    return causal if window is None else causal & (key > query - window)


def visible_drafts(
    first: Int32[Array, "..."],
    mask: UInt32[Array, "..."],
    key: Int32[Array, "..."],
    window: int | None,
) -> Bool[Array, "..."]:
    """Whether a draft sees a key; its row's first draft lies at position `first`.

    mask 0b1011, first 2:   key  0 1 2 3 4 5     all before the drafts, and those of its bits:
                                 x x x x . x     itself and its ancestors, three deep

    A window is counted along the draft's own path, and hides what lies before the drafts only.
    """
    ago = key - first
    bit = (mask >> jnp.clip(ago, 0, 31).astype(jnp.uint32)) & 1
    drafted = (ago >= 0) & (ago < 32) & (bit == 1)
    if window is None:
        return drafted | (ago < 0)
    depth = jax.lax.population_count(mask).astype(jnp.int32) - 1
    return drafted | ((ago < 0) & (ago > depth - window))
