"""How much each token of a finished text attends to each position that was heard.

    tokens [T] ─ layers, all tokens at once ─ cross-attention of some heads ─> weights [A, T, S]

What a step computes in its kernels, which keep no weights, is computed here once more in plain
products, without pages for the text's own keys; those of the encoder are read where they lie. For
models whose positions are learned and whose heads are all alike, which those that hear are.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

from models.encoder_decoder import CrossLayer, EncoderDecoder
from models.layers.attention import EncodedRows, KVCache
from models.layers.parts import split_columns


def cross_weights(
    model: EncoderDecoder,
    tokens: Int32[Array, " T"],
    encoded: EncodedRows,
    cache: KVCache,
    heads: Sequence[tuple[int, int]],
    *,
    pages_per_layer: int,
) -> Float32[Array, "A T S"]:
    """Of `heads`, each a layer and a head in it; `encoded` is of one row. Tokens behind the text
    change nothing before them."""
    x = model.embed(tokens, jnp.arange(tokens.shape[0]))
    last, found = max(layer for layer, _ in heads), {}
    layers: Any = model.layers
    for number, layer in enumerate(layers[: last + 1]):
        keeps = any(of == number for of, _ in heads)
        x, weights = _layer(layer, np.int32(number * pages_per_layer), x, encoded, cache, keeps)
        found[number] = weights
    return jnp.stack([found[layer][head] for layer, head in heads])


@partial(jax.jit, static_argnums=5)
def _layer(
    layer: CrossLayer,
    first_page: Int32[Array, ""],
    x: Float[Array, "T D"],
    encoded: EncodedRows,
    cache: KVCache,
    keeps: bool,
) -> tuple[Float[Array, "T D"], Float32[Array, "N T S"] | None]:
    """What it hands to the next, and the weights if they are kept."""
    x = x + _own(layer, layer.attention_norm(x))
    added, weights = _heard(layer, layer.cross_norm(x), encoded, cache, first_page)
    x = x + added
    mlp: Any = layer.mlp
    return x + mlp(layer.mlp_norm(x)), weights if keeps else None


def _own(layer: CrossLayer, x: Float[Array, "T D"]) -> Float[Array, "T D"]:
    """Attention of the text to itself."""
    attention: Any = layer.attention
    q, k, v = split_columns(attention.qkv(x), attention.shards, *attention.widths)
    H, scale = attention.head_dim, layer.config.score_scale
    q, k, v = (each.reshape(1, x.shape[0], -1, H) for each in (q, k, v))
    h = jax.nn.dot_product_attention(q, k, v, is_causal=True, scale=scale)
    out: Array = attention.o(h.reshape(x.shape[0], -1))
    return out


def _heard(
    layer: CrossLayer,
    x: Float[Array, "T D"],
    encoded: EncodedRows,
    cache: KVCache,
    first_page: Int32[Array, ""],
) -> tuple[Float[Array, "T D"], Float32[Array, "N T S"]]:
    cross, H = layer.cross, layer.config.head_dim
    table = encoded.page_table[0] + first_page
    k, v = _read(cache.k, cache.k_scales, table, H), _read(cache.v, cache.v_scales, table, H)
    there = jnp.arange(k.shape[1]) < encoded.lengths[0]
    v = jnp.where(there[:, None], v, 0)  # beyond lies what others left, even NaN
    q = cross.q(x).reshape(x.shape[0], -1, H).astype(jnp.float32)
    scores = jnp.einsum("tnh,nsh->nts", q, k) * layer.config.score_scale
    weights = jax.nn.softmax(jnp.where(there, scores, -jnp.inf), axis=-1)
    h = jnp.einsum("nts,nsh->tnh", weights, v).astype(x.dtype)
    return cross.o(h.reshape(x.shape[0], -1)), weights


def _read(
    pages: Array | None, scales: Array | None, table: Int32[Array, " MX"], head_dim: int
) -> Float32[Array, "K S H"]:
    """Of one layer and row, all positions in order."""
    if pages is None:
        raise TypeError("a cache of latents has no values")
    found = pages[table].astype(jnp.float32)  # [MX, K, S, H]
    if scales is not None:
        found = found * scales[table][..., None]
    return jnp.moveaxis(found, 1, 0).reshape(found.shape[1], -1, found.shape[3])[..., :head_dim]
