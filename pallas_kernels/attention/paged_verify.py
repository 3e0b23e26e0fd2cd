"""Attention of a row's drafted tokens over its pages (verification of speculative decoding).

For steps in which every row has the same small number of places for tokens, up to 32: chains of
drafts (n-gram, MTP, EAGLE), and trees, whose tokens see ancestors by `tree_mask`. A step that mixes
drafts with chunks of prompts is `ragged_attention`'s, which takes drafts in chains only.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32, Num, UInt32

from pallas_kernels.attention.chunked import attend_blocks
from pallas_kernels.attention.limits import check_pages
from pallas_kernels.dispatch import Backend, resolve
from pallas_kernels.errors import KernelError

MOST_DRAFTS = 32  # of a row: bits of a mask


def paged_verify(
    q: Float[Array, "B Q N H"],
    k_pages: Num[Array, "P K S H"],
    v_pages: Num[Array, "P K S H"],
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " B"],
    counts: Int32[Array, " B"],
    *,
    scale: float,
    tree_mask: UInt32[Array, "B Q"] | None = None,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Float[Array, " N"] | None = None,
    k_scales: Float32[Array, "P Ks S"] | None = None,
    v_scales: Float32[Array, "P Ks S"] | None = None,
    backend: Backend | None = None,
) -> Float[Array, "B Q N H"]:
    """Row b's tokens 0 .. counts[b]-1, which lie at `positions[b]` and after; others: any value.

    Each sees the row's context and the tokens up to itself, or those of its bits in `tree_mask`:
    bit j is token j. A row's keys are read once for as many tokens as a block has columns.
    Specification: `reference.attention_reference`, where token i is at positions[b] + i, or at
    positions[b] with a mask.

    Raises:
        KernelError: there are more than 32 tokens a row, the GPU's kernel does not take these
            shapes, or scales are missing.
    """
    if q.shape[1] > MOST_DRAFTS:
        raise KernelError(
            f"Verification takes up to {MOST_DRAFTS} tokens a row, not {q.shape[1]}; more are a "
            "chunk for `ragged_attention`."
        )
    backend = resolve(backend)
    check_pages(q, k_pages, k_scales, v_scales, backend)
    options: dict[str, Any] = {
        "scale": scale, "window": window, "softcap": softcap, "sinks": sinks,
        "k_scales": k_scales, "v_scales": v_scales, "tree_mask": tree_mask,
    }  # fmt: skip
    if backend is Backend.MOSAIC:
        # Mosaic is imported where it is used: a CPU needs none of what it needs
        from pallas_kernels.attention.mosaic_verify import mosaic_verify, verify_splits

        splits = verify_splits(q, k_pages, page_table)
        return mosaic_verify(
            q, k_pages, v_pages, page_table, positions, counts, splits=splits, **options
        )
    token = jnp.arange(q.shape[1], dtype=jnp.int32)
    asked = jnp.where(token < counts[:, None], positions[:, None] + token, -1)
    return attend_blocks(q, k_pages, v_pages, page_table, asked, **options)
