"""The decode kernel for drafted tokens: what its columns are, and what each of them sees.

    q [B Q N H] ─> columns of a key/value head [B K G*Q H]    head 0: tokens 0 1 2 .. Q-1, head 1 ..
    masks [B Q] ─> bits of each column [B G*Q]                bit j: the draft j of the row

Heads and tokens are both columns of the tensor core's product, so a row's keys are read once for
all that fit. Knows nothing of tiles.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32, Num, UInt32

from pallas_kernels.attention.mosaic_decode import Drafts, attend_columns, columns, decode_splits


def verify_splits(q: Array, pages: Array, page_table: Array) -> int:
    """Into how many blocks each row is divided."""
    B, Q, N, H = q.shape
    K, S = pages.shape[1:3]
    blocks = B * K * -(-N // K * Q // columns(N // K * Q, H))
    return decode_splits("paged_verify", blocks, page_table.shape[1] * S, H, S)


def mosaic_verify(
    q: Float[Array, "B Q N H"],
    k_pages: Num[Array, "P K S H"],
    v_pages: Num[Array, "P K S H"],
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " B"],
    counts: Int32[Array, " B"],
    *,
    splits: int,
    tree_mask: UInt32[Array, "B Q"] | None = None,
    window: int | None = None,
    sinks: Float[Array, " N"] | None = None,
    interpret: bool = False,
    **options: Any,
) -> Float[Array, "B Q N H"]:
    """`paged_verify` in the limits of `check_pages`."""
    B, Q, N, H = q.shape
    K = k_pages.shape[1]
    G = N // K
    bits, depth = _seen(jnp.arange(Q, dtype=jnp.int32), tree_mask, window)
    seen = [jnp.broadcast_to(x, (B, Q)) for x in (bits, depth - (window or 0))]
    drafts = Drafts(counts, jnp.tile(jnp.stack(seen, axis=1), (1, 1, G)))
    grouped = q.reshape(B, Q, K, G, H).transpose(0, 2, 3, 1, 4).reshape(B, K, G * Q, H)
    if sinks is not None:
        sinks = jnp.repeat(sinks.reshape(K, G), Q, axis=1)
    out = attend_columns(
        grouped, k_pages, v_pages, page_table, positions, drafts=drafts, splits=splits,
        window=window, sinks=sinks, interpret=interpret, **options,
    )  # fmt: skip
    return out.reshape(B, K, G, Q, H).transpose(0, 3, 1, 2, 4).reshape(B, Q, N, H)


def _seen(token: Array, tree_mask: Array | None, window: int | None) -> tuple[Array, Array]:
    """The drafts that each token sees, as bits, and how many are before it on its path."""
    if tree_mask is not None:
        depth = lax.population_count(tree_mask).astype(jnp.int32) - 1
        return lax.bitcast_convert_type(tree_mask, jnp.int32), depth
    upto = jnp.left_shift(jnp.uint32(2), token.astype(jnp.uint32)) - jnp.uint32(1)
    hidden = jnp.maximum(token - (window or token.size) + 1, 0).astype(jnp.uint32)
    bits = upto >> hidden << hidden
    return lax.bitcast_convert_type(bits, jnp.int32), token
