"""Online-softmax attention of blocks of queries over pages, a chunk of pages at a time.

The formulation for machines without a GPU: of those measured it moves the fewest bytes (a page of
one head is gathered as one contiguous [S, H] tile, scores of a chunk stay in cache), and it stops
at the last live page. Decode (one query a block) and ragged prefill share it.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32, Int32, Num, UInt32

from pallas_kernels.attention.reference import MASKED, bias_of, visible, visible_drafts

_CHUNK_SLOTS = 64, 256  # keys scored at once, at least and at most
_SCORED = 512  # keys of all queries together, where that is in between
_ALONE = 4  # times fewer where no two queries share a key
_NO_POSITION = 2**31 - 1  # later than any


def attend_blocks(
    q: Float[Array, "M Q N H"],
    k_pages: Num[Array, "P K S H"],
    v_pages: Num[Array, "P K S H"] | None,
    tables: Int32[Array, "M MP"],
    positions: Int32[Array, "M Q"],
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    sinks: Float[Array, " N"] | None = None,
    slopes: Float[Array, " N"] | None = None,
    k_scales: Float32[Array, "P Ks S"] | None = None,
    v_scales: Float32[Array, "P Ks S"] | None = None,
    value_dim: int | None = None,
    tree_mask: UInt32[Array, "M Q"] | None = None,
    distance_bias: Float[Array, "N R"] | None = None,
) -> Float[Array, "M Q N V"]:
    """Attention of each block over the pages of its table; a query at position -1 sees nothing.

    Without `v_pages`, values are the first `value_dim` entries of the keys. With a `tree_mask`,
    queries are drafts, of which a block's first is the earliest.

    Same mathematics as `reference.attention_reference`, in float32.
    """
    M, Q, N, H = q.shape
    K, S = k_pages.shape[1:3]
    G, V = N // K, value_dim or H
    C = max(1, _chunk_slots(M * Q, alone=G * Q == 1) // S)
    queries = q.reshape(M, Q, K, G, H).transpose(0, 2, 3, 1, 4).astype(jnp.float32) * scale
    queries = queries.reshape(M, K, G * Q, H)
    heads = jnp.arange(K)[None, :, None]
    chunks = max(2, -(-tables.shape[1] // C))  # of one alone XLA reads the pages ahead, by a copy
    tables = jnp.pad(tables, ((0, 0), (0, chunks * C - tables.shape[1])))
    newest = positions.max(1, keepdims=True)  # [M, 1]
    asked = jnp.tile(positions, (1, G))[:, None, :, None]  # [M, 1, G*Q, 1]
    if slopes is not None:
        slopes = jnp.repeat(slopes.astype(jnp.float32).reshape(K, G), Q, axis=1)[..., None]

    def chunk(index: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        peak, total, acc = carry
        pages = lax.dynamic_slice_in_dim(tables, index * C, C, axis=1)[:, None, :]  # [M, 1, C]
        keys = _gather(k_pages, pages, heads).astype(jnp.float32)
        values = keys[..., :V]
        if v_pages is not None:
            values = _gather(v_pages, pages, heads).astype(jnp.float32)
        slots = index * C * S + jnp.arange(C * S)
        written = (slots <= newest)[:, None, :, None]  # beyond lies what others left, even NaN
        scores = jnp.einsum("mkqh,mkjh->mkqj", queries, keys)
        if k_scales is not None:
            scores *= k_scales[pages, heads].reshape(M, K, 1, C * S)
        if softcap is not None:
            scores = softcap * jnp.tanh(scores / softcap)
        if slopes is not None:
            scores += slopes * (slots - asked).astype(jnp.float32)
        if distance_bias is not None:
            added = bias_of(distance_bias, positions[..., None] - slots)  # [N, M, Q, C*S]
            scores += added.reshape(K, G, M, Q, -1).transpose(2, 0, 1, 3, 4).reshape(scores.shape)
        seen = visible(asked, slots, window)
        if tree_mask is not None:
            bits = jnp.tile(tree_mask, (1, G))[:, None, :, None]
            seen = visible_drafts(positions[:, :1, None, None], bits, slots, window)
            seen &= asked >= 0
        scores = jnp.where(seen, scores, MASKED)
        new_peak = jnp.maximum(peak, scores.max(-1))
        decay = jnp.exp(peak - new_peak)
        weights = jnp.where(seen, jnp.exp(scores - new_peak[..., None]), 0.0)
        total = total * decay + weights.sum(-1)
        if v_scales is not None:
            scales = v_scales[pages, heads].reshape(M, K, 1, C * S)
            weights *= jnp.where(written[:, :, None, :, 0], scales, 0.0)
        added = _weighted(weights, values, written)
        return new_peak, total, acc * decay[..., None] + added

    rows = (M, K, G * Q)
    peak, total = jnp.full(rows, MASKED), jnp.zeros(rows)
    if sinks is not None:  # as a key that each query has seen first, whose value is nothing
        sink = jnp.repeat(sinks.astype(jnp.float32).reshape(K, G), Q, axis=1)
        peak, total = jnp.broadcast_to(sink, rows), jnp.ones(rows)
    start = (peak, total, jnp.zeros((*rows, V)))
    first, last = _live_chunks(positions, C * S, window)
    _, total, acc = lax.fori_loop(first, last, chunk, start)
    out = acc / jnp.maximum(total, 1e-30)[..., None]  # a query that saw nothing gives zeros
    out = out.reshape(M, K, G, Q, V).transpose(0, 3, 1, 2, 4)
    return jnp.reshape(out, (M, Q, N, V)).astype(q.dtype)


def _weighted(
    weights: Float32[Array, "M K Q J"], values: Float32[Array, "M K J V"], written: Array
) -> Float32[Array, "M K Q V"]:
    """Sums of the values, of which those that are not `written` count for nothing, even NaN.

    Their weights are zero, so that only sums that are not finite are worth a pass over the values:
    a decode step of 16 rows with 200 keys takes 0.945 of the time (110M parameters, two cores).
    """
    added = jnp.einsum("mkqj,mkjh->mkqh", weights, values)

    def cleared() -> Array:
        return jnp.einsum("mkqj,mkjh->mkqh", weights, jnp.where(written, values, 0.0))

    found: Array = lax.cond(jnp.isfinite(added).all(), lambda: added, cleared)
    return found


def _gather(
    pages: Num[Array, "P K S X"], chosen: Int32[Array, "M 1 C"], heads: Int32[Array, "1 K 1"]
) -> Num[Array, "M K C*S X"]:
    """The slots of the `chosen` pages, for each of the heads.

    A tile, a page of one head, is a row of a table here, and nothing is fused with its gathering:
    then a CPU copies whole rows, where it would work out the place of every number. Attention of 16
    rows with 160 keys took 0.82 of the CPU time (two cores of an EPYC, JAX 0.11.2).
    """
    _, K, S, X = pages.shape
    places = (chosen * K + heads).astype(jnp.uint32)  # no index from the end
    tiles = pages.reshape(-1, S * X).at[places.reshape(-1)].get(mode="promise_in_bounds")
    copied: Array = lax.optimization_barrier(tiles)
    return copied.reshape(chosen.shape[0], K, -1, X)


def _chunk_slots(queries: int, *, alone: bool) -> int:
    """Keys scored at once: for few queries a turn of the loop costs more than what it reads.

    A whole decode step of one row with 450 keys, 12 layers, was 1.16 and 1.21 times faster with 256
    than with 64 (10th percentiles, two runs), and with 30 keys as fast.

    Where each query is `alone` with its head's keys, there are more of these to copy, and scoring
    them is no product of matrices. Steps with chunks a fourth as long took, of 8 layers with 8
    heads and, in turn, 8, 56, 250 and 500 keys (JAX 0.11.2, two cores):

         1 row   0.95  0.94  0.96  1.00         8 rows  0.91  0.94  0.98  1.03
         2 rows  0.92  0.96  0.91  0.90        16 rows  0.98  0.99  1.03
         4 rows  0.92  0.94  0.91  0.94        32 rows  0.92        1.06

    and 0.83, 0.93, 0.98 of 8 rows that attend to as many keys of an encoder besides.
    """
    least, most = _CHUNK_SLOTS
    slots = min(max(_SCORED // queries, least), most)
    return slots // _ALONE if alone else slots


def _live_chunks(
    positions: Int32[Array, "M Q"], chunk: int, window: int | None
) -> tuple[Array, Array]:
    """First and one past the last chunk that any query sees: no work on pages that are not live."""
    last = jnp.max(positions) // chunk + 1
    if window is None:
        return jnp.zeros_like(last), last
    earliest = jnp.min(jnp.where(positions < 0, _NO_POSITION, positions))
    return jnp.clip((earliest - window + 1) // chunk, 0, last), last
