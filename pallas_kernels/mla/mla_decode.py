"""Latent attention of one query a row over its pages.

The same kernel as `paged_decode`, which with one key/value head and no pages of values reads each
latent once for 16 query heads. For 128 heads eight blocks read it, seven of them from the L2 cache.
"""

from jaxtyping import Array, Float, Int32

from pallas_kernels.attention.chunked import attend_blocks
from pallas_kernels.dispatch import Backend, resolve
from pallas_kernels.errors import KernelError


def mla_decode(
    q: Float[Array, "B N H"],
    latent_pages: Float[Array, "P S H"],
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " B"],
    *,
    scale: float,
    value_dim: int,
    backend: Backend | None = None,
) -> Float[Array, "B N V"]:
    """Row b's query at `positions[b]` (-1: no query) over its latents 0 .. positions[b].

    Specification: `reference.mla_reference` with `row` = 0 .. B-1.

    Raises:
        KernelError: the GPU's kernel does not take these sizes.
    """
    pages = latent_pages[:, None]  # one key/value head
    if resolve(backend) is Backend.XLA:
        out = attend_blocks(
            q[:, None], pages, None, page_table, positions[:, None],
            scale=scale, window=None, softcap=None, value_dim=value_dim,
        )  # fmt: skip
        return out[:, 0]
    from pallas_kernels.attention.mosaic_decode import columns, decode_splits, mosaic_decode

    (B, N, H), S = q.shape, latent_pages.shape[1]
    if H % 64 or value_dim % 64 or H > 576:
        raise KernelError(
            "The latent attention kernel on this GPU takes latents of a multiple of 64 up to 576 "
            f"and as many values, not {H} and {value_dim}."
        )
    blocks = B * -(-N // columns(N, value_dim))
    splits = decode_splits("mla_decode", blocks, page_table.shape[1] * S, H, S)
    return mosaic_decode(
        q, pages, None, page_table, positions, scale=scale, splits=splits, value_dim=value_dim
    )
