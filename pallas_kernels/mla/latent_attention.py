"""Latent attention over pages, with absorbed weights: one head of keys for all queries.

When is it cheaper to make keys (128 + 64 wide) and values (128 wide) of the latents, and to call
`ragged_attention` on them? Operations of a head of DeepSeek V3:

                     a query that sees a key     a query                   a key
    absorbed         2 (576 + 512) = 2176        2 x 2 x 128 x 512         0
    not absorbed     2 (192 + 128) = 640         0                         2 x 2 x 128 x 512

A prompt without a history has as many queries as keys: not absorbed is cheaper, always. A chunk of
T tokens after a long history makes all its keys again: not absorbed is cheaper if T is more than
262144 / (2176 - 640) = 171, by 2.8 times at T = 2048, and it needs room for the keys that it makes.
"""

from jaxtyping import Array, Float, Int32

from pallas_kernels.attention.chunked import attend_blocks
from pallas_kernels.attention.packed import attend_packed
from pallas_kernels.attention.query_blocks import QueryBlocks, with_decode
from pallas_kernels.dispatch import Backend, resolve
from pallas_kernels.mla.sizes import LatentShape, check_latents
from pallas_kernels.mla.splits import decode_splits


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
    if resolve(backend) is Backend.MOSAIC:
        # Mosaic is imported where it is used: a CPU needs none of what it needs
        from pallas_kernels.mla.mosaic_mla import mosaic_mla_decode

        _check(q, latent_pages, value_dim)
        (B, N, _), S = q.shape, latent_pages.shape[1]
        splits = decode_splits(B, N, page_table.shape[1] * S, S)
        return mosaic_mla_decode(q, latent_pages, page_table, positions, scale=scale, splits=splits)
    out = attend_blocks(
        q[:, None], latent_pages[:, None], None, page_table, positions[:, None],
        scale=scale, window=None, softcap=None, value_dim=value_dim,
    )  # fmt: skip
    return out[:, 0]


def mla_ragged(
    q: Float[Array, "T N H"],
    latent_pages: Float[Array, "P S H"],
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " T"],
    *,
    blocks: QueryBlocks,
    scale: float,
    value_dim: int,
    backend: Backend | None = None,
) -> Float[Array, "T N V"]:
    """Token t at `positions[t]` over latents 0 .. positions[t] of its row; padding gives any value.

    A row's tokens are at consecutive positions. Specification: `reference.mla_reference`, with
    each token's row as `blocks` says.

    Raises:
        KernelError: the GPU's kernel does not take these sizes.
    """
    if resolve(backend) is Backend.MOSAIC:
        _check(q, latent_pages, value_dim)
        return _ragged_on_hopper(q, latent_pages, page_table, positions, blocks, scale, value_dim)
    return attend_packed(
        q, latent_pages[:, None], None, page_table, positions, blocks,
        scale=scale, window=None, softcap=None, value_dim=value_dim,
    )  # fmt: skip


def _ragged_on_hopper(
    q: Array, latent_pages: Array, page_table: Array, positions: Array, blocks: QueryBlocks,
    scale: float, value_dim: int,
) -> Array:  # fmt: skip
    """Rows of one token go as in a decode step, which divides their latents among blocks."""
    from pallas_kernels.mla.mosaic_mla import mosaic_mla_ragged

    def chunks(least: int) -> Array:
        return mosaic_mla_ragged(
            q, latent_pages, page_table, positions, blocks=blocks, scale=scale, least=least
        )

    def decode(queries: Array, asked: Array) -> Array:
        return mla_decode(
            queries, latent_pages, page_table, asked,
            scale=scale, value_dim=value_dim, backend=Backend.MOSAIC,
        )  # fmt: skip

    return with_decode(q, positions, blocks, chunks, decode)


def _check(q: Array, latent_pages: Array, value_dim: int) -> None:
    S, H = latent_pages.shape[1:]
    check_latents(LatentShape(H, value_dim, S, latent_pages.dtype), Backend.MOSAIC)
