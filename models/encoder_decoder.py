"""A decoder whose layers attend to an encoder too: BART, T5 and what is built like them.

    encoder's tokens [S] ─ encoder, once a request ─ keys and values of every layer ─> pages
    tokens [T] ─ embed ─ layers: attention, cross-attention, MLP ⟷ pages ─ hidden [T, D]

Owns the equations that `decoder.py` lacks. In a step it is a decoder like any other.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int32

from models.config.decoder import LayerKind, ModelConfig
from models.decoder import Decoder, Layer, make_norm
from models.encoder import Encoder
from models.errors import UnsupportedError
from models.layers.attention import AttentionBatch, EncodedRows, KVCache
from models.layers.cross_attention import CrossAttention, places
from models.layers.relative_bias import backward_bias
from models.layers.site import Site


class EncoderDecoder(Decoder):
    """A `Decoder` with an encoder, which shares its embeddings.

    Raises:
        UnsupportedError: it is to be divided among devices.
    """

    def __init__(self, config: ModelConfig, *, dtype: DTypeLike, shards: int = 1):
        if config.encoder is None:
            raise TypeError(f"{config.architecture} has no encoder")
        if shards > 1:
            raise UnsupportedError(
                f"{config.architecture} has an encoder and runs on one device; use "
                "--tensor-parallel-size 1."
            )
        super().__init__(config, dtype=dtype)
        self.encoder = Encoder(config.encoder, dtype=dtype)
        self.relative_bias = _distances(config, by_layer=False)
        biased = config.head_bias and config.tied_head
        self.logits_bias = _zeros((config.vocab_size,), ("norm",)) if biased else None

    def make_layer(self, kind: LayerKind, dtype: DTypeLike, shards: int) -> Layer:
        """One of its layers."""
        return CrossLayer(self.config, kind, dtype, shards)

    def embed_source(
        self, source: Int32[Array, " S"] | Float32[Array, "frames mels"]
    ) -> Float[Array, "1 S D"]:
        """What the first layer of the encoder reads."""
        if self.encoder.stem is not None:
            return self.encoder.placed(self.encoder.stem(source[None]))
        x = self.embedding[...][source][None]
        return self.encoder.placed(x * jnp.asarray(self.config.embedding_scale, x.dtype))

    def encode(
        self,
        source: Int32[Array, " S"] | Float32[Array, "frames mels"],
        encoded: EncodedRows,
        cache: KVCache,
        *,
        pages_per_layer: int,
    ) -> KVCache:
        """`cache` with what every layer attends to, of the one row that `encoded` describes.

        Tokens behind the row's length are padding. Audio is twice as many frames of a spectrogram.
        """
        hidden = self.encoder.run(self.embed_source(source), encoded.lengths)[0]
        num_pages, size = cache.k.shape[0], cache.page_size
        page, slot = places(encoded, 0, hidden.shape[0], size, num_pages)
        layers: Any = self.layers
        for index, layer in enumerate(layers):
            there = jnp.where(page < num_pages, page + index * pages_per_layer, num_pages)
            cache = layer.cross.write(hidden, there, slot, cache)
        return cache

    def run_layers(
        self,
        x: Float[Array, "*S T D"],
        positions: Int32[Array, " T"],
        batch: AttentionBatch,
        cache: KVCache,
        given: Float[Array, "T L P"] | None = None,
    ) -> Iterator[tuple[Float[Array, "*S T D"], KVCache]]:
        """As a decoder's, of rows that were encoded."""
        batch = _with_bias(batch, self.config, self.relative_bias)
        return super().run_layers(x, positions, batch, cache, given)

    def logits(self, hidden: Float[Array, "B D"]) -> Float32[Array, "B V"]:
        """Scores of the next token, in float32."""
        scores = super().logits(hidden)
        return scores if self.logits_bias is None else scores + self.logits_bias[...]


class CrossLayer(Layer):
    """x += f(norm(x)) for attention, cross-attention and MLP; or x = norm(x + f(x))."""

    def __init__(self, config: ModelConfig, kind: LayerKind, dtype: DTypeLike, shards: int):
        super().__init__(config, kind, dtype, shards)
        self.cross_norm = make_norm(config)
        self.cross = CrossAttention(config, dtype)
        self.relative_bias = _distances(config, by_layer=True)

    def _block(
        self,
        x: Float[Array, "T D"],
        site: Site,
        cache: KVCache,
    ) -> tuple[Float[Array, "T D"], KVCache]:
        before = self._before(self.attention_norm, x)
        site = site._replace(batch=_with_bias(site.batch, self.config, self.relative_bias))
        h, cache = self._mix(before, site, cache)
        x = self._behind(self.attention_norm, x if h is None else x + h)
        h = self.cross(site.layer, self._before(self.cross_norm, x), site.batch, cache)
        x = self._behind(self.cross_norm, x + h)
        mlp: Any = self.mlp
        h = mlp(self._before(self.mlp_norm, x))
        return self._behind(self.mlp_norm, x + h), cache


def _distances(config: ModelConfig, *, by_layer: bool) -> nnx.Param[Array] | None:
    """The numbers of a bias by distance, where it is kept: in each layer, or once."""
    kind = config.relative
    if kind is None or kind.by_layer != by_layer:
        return None
    return _zeros((kind.buckets, config.num_heads), ("position", "heads"))


def _with_bias(
    batch: AttentionBatch, config: ModelConfig, table: nnx.Param[Array] | None
) -> AttentionBatch:
    if config.relative is None or table is None:
        return batch
    return replace(batch, distance_bias=backward_bias(config.relative, table[...]))


def _zeros(shape: tuple[int, ...], axes: tuple[str, ...]) -> nnx.Param[Array]:
    return nnx.Param(jnp.zeros(shape, jnp.float32), axes=axes)


def make_decoder(config: ModelConfig, *, dtype: DTypeLike, shards: int = 1) -> Decoder:
    """The decoder that `config` describes."""
    kind = Decoder if config.encoder is None else EncoderDecoder
    return kind(config, dtype=dtype, shards=shards)
