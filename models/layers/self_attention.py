"""From a layer's input to what its attention adds: projections, norms of heads, scores' scale.

Owns what is not yet or no longer divided into pages; those, and the kernels, are `attention.py`'s.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int32

from models.config.decoder import LayerKind, ModelConfig
from models.layers.attention import KVCache, paged_attention
from models.layers.parts import Linear, join_columns, split_columns
from models.layers.qk_norms import has_norm, head_norm, norm_heads, norms_of_write
from models.layers.rope import Rotation
from models.layers.site import Site
from pallas_kernels import rms_norm


class Attention(nnx.Module):
    """Causal attention of N query heads over K key/value heads in the paged cache."""

    def __init__(self, config: ModelConfig, kind: LayerKind, dtype: DTypeLike, shards: int):
        D, N, (_, H) = config.attended_size, config.num_heads, config.kv_heads_of(kind)
        K = config.cache_kv_heads(shards, kind)
        self.config, self.shards = config, shards
        self.head_dim, self.kv_heads = H, K if config.mixes_heads else None
        self.widths = (N * H, K * H, K * H)
        self.window, self.chunk = config.visible(kind.window), config.visible(kind.chunk)
        self.qk_norm = config.qk_norm if has_norm(config.qk_norm, kind.rope) else None
        growth = config.score_growth
        self.growth = growth if growth and (growth.rotated or kind.rope is None) else None
        self.shared = kind.shared
        project = partial(Linear, D, axes=("embed", "heads"), bias=config.qkv_bias, dtype=dtype)
        self.keys_as_values = kind.keys_as_values
        if kind.shared:
            self.q = project(N * H)
        elif kind.keys_as_values:
            self.qk = project(sum(self.widths[:2]))
        else:
            self.qkv = project(sum(self.widths))
        out = config.hidden_size
        self.o = Linear(N * H, out, axes=("heads", "embed"), bias=config.o_bias, dtype=dtype)
        self.q_norm, self.k_norm = (
            head_norm(config, self.qk_norm, heads, H) if self.qk_norm and heads else None
            for heads in (N, 0 if kind.shared else K)
        )
        self.sinks = nnx.Param(jnp.zeros(N, jnp.float32), axes=("heads",)) if config.sinks else None
        gate = partial(Linear, D, N * H, axes=("embed", "heads"), bias=config.qkv_bias, dtype=dtype)
        self.gate = gate() if config.output_gate else None

    def __call__(
        self,
        x: Float[Array, "T I"],
        site: Site,
        cache: KVCache,
        added: Float[Array, "T columns"] | None = None,
    ) -> tuple[Float[Array, "T D"], KVCache]:
        """`added` to queries, keys and values, as their product has them."""
        H, (index, _, turn, batch) = self.head_dim, site
        norms = norms_of_write(self.config, self.qk_norm, self.q_norm, self.k_norm, H)
        qkv = self._project(x)  # [T, (N+2K)H]
        qkv = qkv if added is None else qkv + added
        if self.config.value_norm and not self.shared:
            qkv = self._with_normed_values(qkv)
        if norms is None:
            qkv, turn = self._normed(qkv, turn)
        if batch.mesh is None and self.shards > 1:  # nobody takes the columns of one shard
            qkv = jnp.concatenate(split_columns(qkv, self.shards, *self.widths), axis=1)
        slopes = self.config.slopes
        h, cache = paged_attention(
            batch,
            cache,
            index,
            qkv,
            turn,
            norms,
            self._factor(index, batch.positions),
            head_dim=H,
            kv_heads=self.kv_heads,
            scale=self.config.scale_of(H),
            window=self.window,
            chunk=self.chunk,
            write=not self.shared,
            softcap=self.config.attention_softcap,
            sinks=None if self.sinks is None else self.sinks[...],
            slopes=None if slopes is None else jnp.asarray(slopes, jnp.float32),
        )  # [T, NH]
        if self.gate is not None:
            h = h * jax.nn.sigmoid(self.gate(x))
        scale = self.config.attention_output_scale
        y = self.o(h)
        return y if scale == 1.0 else y * jnp.asarray(scale, y.dtype), cache

    def _factor(
        self, index: Int32[Array, ""], positions: Int32[Array, " T"]
    ) -> Float32[Array, "..."] | None:
        """What queries are multiplied by besides the scale of scores: a number, or one a token."""
        growth = self.growth
        if growth is not None:
            periods = (positions + growth.offset) // growth.trained
            return 1 + growth.beta * jnp.log1p(jnp.float32(periods))
        return 1 / jnp.float32(index + 1) if self.config.scale_by_layer else None

    def _project(self, x: Float[Array, "T D"]) -> Float[Array, "T columns"]:
        """Queries, keys and values; of shared ones zeros in their place, which nobody reads."""
        if self.shared:
            nothing = jnp.zeros((x.shape[0], self.widths[1]), x.dtype)
            return join_columns(self.shards, self.q(x), nothing, nothing)
        if self.keys_as_values:
            q, k = split_columns(self._clipped(self.qk(x)), self.shards, *self.widths[:2])
            return join_columns(self.shards, q, k, k)
        return self._clipped(self.qkv(x))

    def _with_normed_values(self, qkv: Float[Array, "T columns"]) -> Float[Array, "T columns"]:
        q, k, v = split_columns(qkv, self.shards, *self.widths)
        heads = v.reshape(v.shape[0], -1, self.head_dim)
        ones = jnp.ones(self.head_dim, jnp.float32)
        normed = rms_norm(heads, ones, self.config.norm_eps).astype(v.dtype)
        return join_columns(self.shards, q, k, normed.reshape(v.shape))

    def _clipped(self, qkv: Float[Array, "T columns"]) -> Float[Array, "T columns"]:
        bound = self.config.qkv_clip
        return qkv if bound is None else jnp.clip(qkv, -bound, bound)

    def _normed(
        self, qkv: Float[Array, "T columns"], turn: Rotation | None
    ) -> tuple[Float[Array, "T columns"], Rotation | None]:
        """With the norms that the write into pages does not compute; and the rotation it still has
        to."""
        kind, H = self.qk_norm, self.head_dim
        if kind is None or self.q_norm is None or self.k_norm is None:
            return qkv, turn
        q, k, v = split_columns(qkv, self.shards, *self.widths)
        q, k = norm_heads(kind, self.q_norm, q, H, turn), norm_heads(kind, self.k_norm, k, H, turn)
        return join_columns(self.shards, q, k, v), None if kind.rotated else turn
