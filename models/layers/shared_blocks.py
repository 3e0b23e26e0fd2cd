"""Attention and MLP whose weights several layers have, and what each of these has of its own.

    layer's input x ──┬─ side by side ─ norm ─ attention ─ norm ─ MLP ─ out ─> added to what the
    embeddings ───────┘                        + adapter         + adapter     layer's mixer reads

Owns the order of these steps. The block's weights are leaves of the decoder, once; norms, adapters
and pages are of a use. Source: Zamba2, arXiv 2411.15242, whose block has no residual sum.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from models.config.decoder import ModelConfig, SharedBlocks
from models.layers.attention import KVCache
from models.layers.mlp import GatedMLP
from models.layers.parts import Linear, RMSNorm, join_columns
from models.layers.site import Site

Attend = Callable[..., tuple[Array, KVCache]]


class SharedBlock(nnx.Module):
    """What all layers that take it have in common."""

    def __init__(self, config: ModelConfig, attention: Attend, mlp: GatedMLP):
        self.norm = RMSNorm(config.attended_size, eps=config.norm_eps)
        self.attention, self.mlp = attention, mlp
        self.mlp_norm = RMSNorm(config.hidden_size, eps=config.norm_eps)


class Lent(NamedTuple):
    """What a layer is given for its turn with a block."""

    block: SharedBlock
    embedded: Float[Array, "T D"]


class BlockUse(nnx.Module):
    """One layer's turn."""

    def __init__(self, config: ModelConfig, blocks: SharedBlocks, dtype: DTypeLike, shards: int):
        D, F, rank = config.hidden_size, config.intermediate_size, blocks.rank
        self.heads = HeadsAdapter(config, rank, dtype, shards) if blocks.adapted_heads else None
        self.mlp = Adapter(D, 2 * F, rank, "mlp", dtype)
        self.out = Linear(D, D, axes=("embed", "latent"), bias=False, dtype=dtype)

    def __call__(
        self,
        lent: Lent,
        x: Float[Array, "T D"],
        site: Site,
        cache: KVCache,
    ) -> tuple[Float[Array, "T D"], KVCache]:
        block = lent.block
        h = block.norm(jnp.concatenate([x, lent.embedded], axis=-1))  # [T, 2 D]
        added = None if self.heads is None else self.heads(h)
        h, cache = block.attention(h, site, cache, added)
        h = block.mlp_norm(h)
        return self.out(block.mlp(h, self.mlp(h))), cache


class Adapter(nnx.Module):
    """up(down(x)), of a low rank."""

    def __init__(self, inputs: int, outputs: int, rank: int, axis: str, dtype: DTypeLike):
        self.down = Linear(inputs, rank, axes=("embed", "latent"), bias=False, dtype=dtype)
        self.up = Linear(rank, outputs, axes=("latent", axis), bias=False, dtype=dtype)

    def __call__(self, x: Float[Array, "T inputs"]) -> Float[Array, "T outputs"]:
        return self.up(self.down(x))


class HeadsAdapter(nnx.Module):
    """An adapter each for queries, keys and values, of which all first products are one."""

    def __init__(self, config: ModelConfig, rank: int, dtype: DTypeLike, shards: int):
        size, K = config.head_dim, config.cache_kv_heads(shards)
        self.shards = shards
        self.down = Linear(
            config.attended_size, 3 * rank, axes=("embed", "latent"), bias=False, dtype=dtype
        )
        self.q, self.k, self.v = (
            Linear(rank, heads * size, axes=("latent", "heads"), bias=False, dtype=dtype)
            for heads in (config.num_heads, K, K)
        )

    def __call__(self, x: Float[Array, "T I"]) -> Float[Array, "T columns"]:
        q, k, v = jnp.split(self.down(x), 3, axis=-1)
        return join_columns(self.shards, self.q(q), self.k(k), self.v(v))
