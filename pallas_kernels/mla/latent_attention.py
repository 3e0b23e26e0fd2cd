"""Latent attention over pages, with absorbed weights: one head of keys for all queries.

Absorbed, a token and a key cost 2 (576 + 512) operations a head, where keys and values of their own
would cost 2 (192 + 128) after as much work on every key; but a latent is read once for all heads.
"""

from jaxtyping import Array, Float, Int32

from pallas_kernels.attention.chunked import attend_blocks
from pallas_kernels.attention.query_blocks import QueryBlocks
from pallas_kernels.dispatch import Backend, resolve
from pallas_kernels.mla.sizes import LatentShape, check_latents, splits_for


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
        splits = splits_for(q.shape, page_table.shape[1] * latent_pages.shape[1])
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
        from pallas_kernels.mla.mosaic_mla import mosaic_mla_ragged

        _check(q, latent_pages, value_dim)
        return mosaic_mla_ragged(q, latent_pages, page_table, positions, blocks=blocks, scale=scale)
    queries = q.at[blocks.tokens].get(mode="fill", fill_value=0)  # [M, Q, N, H]
    asked = positions.at[blocks.tokens].get(mode="fill", fill_value=-1)  # [M, Q]
    out = attend_blocks(
        queries, latent_pages[:, None], None, page_table[blocks.rows], asked,
        scale=scale, window=None, softcap=None, value_dim=value_dim,
    )  # fmt: skip
    flat: Array = out.reshape(-1, *out.shape[2:])
    return flat[blocks.places]


def _check(q: Array, latent_pages: Array, value_dim: int) -> None:
    S, H = latent_pages.shape[1:]
    shape = LatentShape(q.shape[1], H, value_dim, S, latent_pages.dtype)
    check_latents(shape, Backend.MOSAIC)
