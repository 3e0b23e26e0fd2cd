"""Attention of a decoder's tokens to what an encoder read.

    encoder's hidden [S, D] ── kv ──> pages of the row, once         the pool and layers are those
    x [T, D] ── q ── all of the row's S ── o ──> [T, D]              of the decoder's own cache

Owns the projections, the write and the read. Knows nothing of encoders, norms and residuals.
"""

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int32

from models.config.decoder import ModelConfig
from models.layers.attention import AttentionBatch, EncodedRows, KVCache
from models.layers.parts import Linear
from models.sharding import TENSOR, on_each_device
from pallas_kernels import Backend, Pages, paged_decode, qkv_write, ragged_attention


class CrossAttention(nnx.Module):
    """N query heads of a decoder over K key/value heads of its encoder."""

    def __init__(self, config: ModelConfig, dtype: DTypeLike):
        D, H, bias = config.hidden_size, config.head_dim, config.qkv_bias
        queries, keys = config.num_heads * H, config.num_kv_heads * H
        self.config = config
        self.q = Linear(D, queries, axes=("embed", "heads"), bias=bias, dtype=dtype)
        self.kv = Linear(D, 2 * keys, axes=("embed", "heads"), bias=bias, dtype=dtype)
        self.o = Linear(queries, D, axes=("heads", "embed"), bias=config.o_bias, dtype=dtype)

    def __call__(
        self,
        index: Int32[Array, ""],
        x: Float[Array, "T D"],
        batch: AttentionBatch,
        cache: KVCache,
    ) -> Float[Array, "T D"]:
        H, N = self.config.head_dim, self.config.num_heads
        here = partial(_attend, scale=self.config.score_scale)
        whole, heads = PartitionSpec(), PartitionSpec(None, TENSOR)
        attend = on_each_device(here, batch.mesh, (whole, heads, whole, heads), heads)
        q = self.q(x).reshape(-1, N, H)
        q = jnp.pad(q, ((0, 0), (0, 0), (0, cache.k.shape[3] - H)))  # as heads lie in pages
        return self.o(attend(batch, cache, index, q)[..., :H].reshape(-1, N * H))

    def write(
        self,
        hidden: Float[Array, "S D"],
        page: Int32[Array, " S"],
        slot: Int32[Array, " S"],
        cache: KVCache,
    ) -> KVCache:
        """`cache` with keys and values of the encoder's states; a page past the end is dropped."""
        if cache.v is None:
            raise TypeError("a cache of latents has no values")
        pages = Pages(cache.k, cache.v, cache.k_scales, cache.v_scales)
        _, pages = qkv_write(
            self.kv(hidden), pages, page, slot,
            head_dim=self.config.head_dim, backend=Backend.XLA,
        )  # fmt: skip
        return KVCache(*pages)


def _attend(
    batch: AttentionBatch, cache: KVCache, layer: Array, q: Float[Array, "T N H"], *, scale: float
) -> Float[Array, "T N H"]:
    """A token sees its row as the newest of the encoder's positions would; padding sees nothing."""
    encoded = batch.encoded
    if encoded is None or cache.v is None:
        raise TypeError("the batch has no encoded rows")
    table = encoded.page_table + layer * batch.pages_per_layer
    newest = (encoded.lengths - 1).at[batch.row].get(mode="fill", fill_value=-1)  # [T]
    if batch.blocks is not None and batch.backend is Backend.XLA:
        return ragged_attention(
            q, cache.k, cache.v, table, newest,
            blocks=batch.blocks, scale=scale, k_scales=cache.k_scales, v_scales=cache.v_scales,
            backend=batch.backend,
        )  # fmt: skip
    if batch.blocks is not None:  # the kernels for chunks are causal: each token is a row instead
        table = table.at[batch.row].get(mode="clip")
    return paged_decode(
        q, cache.k, cache.v, table, newest,
        scale=scale, k_scales=cache.k_scales, v_scales=cache.v_scales, backend=batch.backend,
    )  # fmt: skip


def places(
    encoded: EncodedRows, row: int, count: int, page_size: int, num_pages: int
) -> tuple[Int32[Array, " S"], Int32[Array, " S"]]:
    """Page and slot of the first `count` positions of a row; behind its length, `num_pages`."""
    position = jnp.arange(count)
    page = encoded.page_table[row].at[position // page_size].get(mode="fill", fill_value=num_pages)
    return jnp.where(position < encoded.lengths[row], page, num_pages), position % page_size
