"""Attention of one query a row over its pages (PagedAttention's decode)."""

from jaxtyping import Array, Float, Int32

from pallas_kernels.chunked_attention import attend_blocks


def paged_decode(
    q: Float[Array, "B N H"],
    k_pages: Float[Array, "P K S H"],
    v_pages: Float[Array, "P K S H"],
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " B"],
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Float[Array, "B N H"]:
    """Row b's query at `positions[b]` (-1: no query) over its slots 0 .. positions[b].

    Specification: `reference.attention_reference` with `row` = 0 .. B-1.
    """
    out = attend_blocks(
        q[:, None], k_pages, v_pages, page_table, positions[:, None],
        scale=scale, window=window, softcap=softcap,
    )  # fmt: skip
    return out[:, 0]
