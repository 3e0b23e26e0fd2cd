"""Causal attention of packed chunks of queries over their pages (chunked prefill, mixed steps)."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from pallas_kernels.attention.chunked import attend_blocks
from pallas_kernels.attention.query_blocks import QueryBlocks


def ragged_attention(
    q: Float[Array, "T N H"],
    k_pages: Float[Array, "P K S H"],
    v_pages: Float[Array, "P K S H"],
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " T"],
    *,
    blocks: QueryBlocks,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Float[Array, "T N H"]:
    """Token t at `positions[t]` over slots 0 .. positions[t] of its row; padding gives any value.

    Specification: `reference.attention_reference`, with each token's row as `blocks` says.
    """
    _, N, H = q.shape
    queries = q.at[blocks.tokens].get(mode="fill", fill_value=0)  # [M, Q, N, H]
    asked = positions.at[blocks.tokens].get(mode="fill", fill_value=-1)  # [M, Q]
    out = attend_blocks(
        queries, k_pages, v_pages, page_table[blocks.rows], asked,
        scale=scale, window=window, softcap=softcap,
    )  # fmt: skip
    return jnp.reshape(out, (-1, N, H))[blocks.places]
