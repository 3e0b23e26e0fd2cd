"""Attention of one query a row over its pages (PagedAttention's decode)."""

from jaxtyping import Array, Float, Int32

from pallas_kernels.attention.chunked import attend_blocks
from pallas_kernels.dispatch import hopper


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
    gpu = hopper()
    if gpu is not None:
        # Mosaic is imported where it is used: a CPU needs none of what it needs
        from pallas_kernels.attention.mosaic_decode import (
            check_limits,
            choose_splits,
            mosaic_decode,
        )

        check_limits(q, k_pages)
        blocks = q.shape[0] * k_pages.shape[1]
        splits = choose_splits(blocks, page_table.shape[1] * k_pages.shape[2], gpu.num_cores)
        return mosaic_decode(
            q, k_pages, v_pages, page_table, positions,
            scale=scale, window=window, softcap=softcap, splits=splits,
        )  # fmt: skip
    out = attend_blocks(
        q[:, None], k_pages, v_pages, page_table, positions[:, None],
        scale=scale, window=window, softcap=softcap,
    )  # fmt: skip
    return out[:, 0]
