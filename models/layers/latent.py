"""Latent attention: queries from a compressed vector, keys and values as another one in the cache.

    x ─ q_down ─ norm ─ q_up ─┬─ key part ─ key_up (absorbed) ─┐
                              └─ rotated part ─────────────────┴─ q [T, N, rank + R] ─┐
    x ─ kv_down ─┬─ norm ──────────────────────┬─ latent [T, rank + R] ─> pages ──────┴─ attention
                 └─ rotated, one for all heads ┘                                           │
                                                      o ─ value_up ─ [T, N, rank] ─────────┘

With an index (`indexer.py`) a token sees some of the latents only.

Owns the projections and what is absorbed into queries and results, so that no key and no value of
a head is ever made. Source: DeepSeek-V2, arXiv 2405.04434.
"""

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from models.config.decoder import Latent, LayerKind, ModelConfig
from models.layers.attention import Indexed, KVCache, latent_attention
from models.layers.indexer import Indexer
from models.layers.parts import Linear, RMSNorm
from models.layers.rope import rotate
from models.layers.site import Site

_EPS = 1e-6  # of the norms of compressed vectors, whatever the model's others have


class LatentAttention(nnx.Module):
    """Causal attention of N heads over one latent a token."""

    def __init__(self, config: ModelConfig, latent: Latent, kind: LayerKind, dtype: DTypeLike):
        D, N, rank = config.hidden_size, config.num_heads, latent.rank
        width, query_rank = N * (latent.key_dim + latent.rope_dim), latent.query_rank
        self.config, self.latent = config, latent
        bias = config.qkv_bias
        down = ("embed", "latent")
        if query_rank is not None:
            self.q_down = Linear(D, query_rank, axes=down, bias=bias, dtype=dtype)
            self.q_norm = RMSNorm(query_rank, eps=_EPS)
        inputs = D if query_rank is None else query_rank
        self.q_up = Linear(inputs, width, axes=("embed", "heads"), bias=False, dtype=dtype)
        self.kv_down = Linear(D, rank + latent.rope_dim, axes=down, bias=bias, dtype=dtype)
        self.kv_norm = RMSNorm(rank, eps=_EPS)
        self.key_up = _by_head((N, latent.key_dim, rank), dtype)
        self.value_up = _by_head((N, rank, latent.value_dim), dtype)
        self.o = Linear(
            N * latent.value_dim, D, axes=("heads", "embed"), bias=config.o_bias, dtype=dtype
        )
        index = latent.index
        own = index if not kind.chosen_before else None
        self.indexer = Indexer(config, latent, own, dtype) if own is not None else None
        self.kept = any(one.chosen_before for one in config.layer_kinds)

    def __call__(
        self,
        x: Float[Array, "T D"],
        site: Site,
        cache: KVCache,
    ) -> tuple[Float[Array, "T D"], KVCache]:
        (T, _), latent, (index, _, turn, batch) = x.shape, self.latent, site
        compressed = x if latent.query_rank is None else self.q_norm(self.q_down(x))
        q = self.q_up(compressed).reshape(T, -1, latent.key_dim + latent.rope_dim)  # [T, N, _]
        q, q_rope = jnp.split(q, [latent.key_dim], axis=-1)
        kv, k_rope = jnp.split(self.kv_down(x), [latent.rank], axis=-1)  # [T, rank], [T, R]
        if turn is not None:
            q_rope, k_rope = rotate(q_rope, turn), rotate(k_rope[:, None], turn)[:, 0]
        indexed = None
        if latent.index is not None:
            queries, keys = None, None
            if self.indexer is not None:
                queries, keys = self.indexer(x, compressed, turn)
            indexed = Indexed(queries, keys, latent.index.top, self.kept)
        absorbed = _times(q, self.key_up[...])  # [T, N, rank]
        h, cache = latent_attention(
            batch,
            cache,
            index,
            jnp.concatenate([absorbed, q_rope], axis=-1),
            jnp.concatenate([self.kv_norm(kv), k_rope], axis=-1),
            indexed,
            scale=self.config.score_scale,
            value_dim=latent.rank,
        )  # [T, N, rank]
        values = _times(h, self.value_up[...])  # [T, N, V]
        return self.o(values.reshape(T, -1)), cache


def _times(x: Float[Array, "T N a"], matrices: Float[Array, "N a c"]) -> Float[Array, "T N c"]:
    """Each head's part of a token times its matrix, with tokens on the left.

    An einsum may put the matrices there, for which XLA has no fast product on a CPU: 88 us for 39
    with 8 tokens and heads, 64 by 128 (two cores of a Xeon, JAX 0.11.2).
    """
    return jnp.swapaxes(lax.dot_general(x, matrices, (((2,), (1,)), ((1,), (0,)))), 0, 1)


def _by_head(shape: tuple[int, ...], dtype: DTypeLike) -> nnx.Param[Array]:
    return nnx.Param(jnp.zeros(shape, dtype), axes=("heads", None, None))
