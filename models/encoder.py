"""One encoder for every family of `architectures/` that reads whole sequences at once.

    tokens [B, S] ─ embed ─ layers: attention over the row, MLP ─ hidden [B, S, D]

Owns the equations. Knows no family by name: what differs is a field of `EncoderConfig`. There is no
cache: a row is computed once, whole. What lies behind a row's length is padding, which no token
sees. B rows, S tokens of a row.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Float32, Int32

from models.config.encoder import ClassifierHead, EncoderConfig, EncoderLayerKind
from models.layers.audio_stem import AudioStem
from models.layers.parts import ACTIVATIONS, Activation, LayerNorm, Linear, RMSNorm, identity
from models.layers.relative_bias import two_sided_bias
from models.layers.rope import RopeConfig, Rotation, rotate, rotation

HEAD_ACTIVATIONS: Mapping[str, Activation] = {"tanh": jnp.tanh, **ACTIVATIONS}
_QUERIES = 512  # attended at a time: scores of a long row are never all there
_HIDDEN = -1e30  # a score; infinities would make rows of padding no numbers
_AXES = ("embed", "embed")  # every device has the whole of an encoder


class Encoder(nnx.Module):
    """Rows of tokens in, hidden states out; parameters are zeros until loaded."""

    def __init__(self, config: EncoderConfig, *, dtype: DTypeLike):
        D = config.hidden_size
        learned = config.positions == "learned"
        self.config = config
        own = not config.shared_embedding
        self.embedding = _table(config.vocab_size, D, dtype) if own else None
        self.stem = AudioStem(config.mel_bins, D, dtype) if config.mel_bins else None
        self.position_embedding = (
            _table(config.max_position_embeddings, D, dtype) if learned else None
        )
        self.type_embedding = _table(config.token_types, D, dtype) if config.token_types else None
        self.embedding_norm = _norm(config) if config.embedding_norm else None
        self.relative_bias = _distances(config, by_layer=False)
        self.layers = nnx.List(
            EncoderLayer(config, kind, dtype, idle=config.first_norm_idle and index == 0)
            for index, kind in enumerate(config.layer_kinds)
        )
        self.norm = _norm(config) if config.norm_first else None

    def embed(
        self, tokens: Int32[Array, "B S"], types: Int32[Array, "B S"]
    ) -> Float[Array, "B S D"]:
        """What the first layer reads; `types` says of which text of a pair each token is."""
        if self.embedding is None:
            raise TypeError("the tokens of this encoder are embedded by a decoder's table")
        x = self.embedding[...][tokens]
        if self.type_embedding is not None:
            x = x + self.type_embedding[...][types]
        return self.placed(x)

    def placed(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        """Embeddings at the places where they stand."""
        if self.position_embedding is not None:
            first = self.config.position_offset
            x = x + self.position_embedding[...][first + jnp.arange(x.shape[1])]
        return x if self.embedding_norm is None else self.embedding_norm(x)

    def __call__(
        self,
        tokens: Int32[Array, "B S"],
        types: Int32[Array, "B S"],
        lengths: Int32[Array, " B"],
    ) -> Float[Array, "B S D"]:
        """Hidden states of every token; those behind a row's length mean nothing."""
        return self.run(self.embed(tokens, types), lengths)

    def run(self, x: Float[Array, "B S D"], lengths: Int32[Array, " B"]) -> Float[Array, "B S D"]:
        """The layers, from what the first of them reads, and the norm behind the last."""
        *_, last = self.run_layers(x, lengths)
        return last if self.norm is None else self.norm(last)

    def run_layers(
        self, x: Float[Array, "B S D"], lengths: Int32[Array, " B"]
    ) -> Iterator[Float[Array, "B S D"]]:
        """What each layer hands on."""
        positions = jnp.arange(x.shape[1])
        ropes = [kind.rope for kind in self.config.layer_kinds]
        turns: dict[RopeConfig | None, Rotation] = {
            rope: rotation(rope, positions, self.config.context_length)
            for rope in set(ropes)
            if rope
        }
        bias = _bias(self.config, self.relative_bias)
        for layer, rope in zip(self.layers, ropes, strict=True):
            x = _run_layer(layer, x, turns.get(rope), lengths, bias)
            yield x


class EncoderLayer(nnx.Module):
    """norm(x + f(x)) for attention, then for the MLP; or x + f(norm(x)) where `norm_first`."""

    def __init__(
        self, config: EncoderConfig, kind: EncoderLayerKind, dtype: DTypeLike, *, idle: bool
    ):
        D, F = config.hidden_size, config.intermediate_size
        linear = partial(Linear, axes=_AXES, bias=config.bias, dtype=dtype)
        self.config, self.window = config, kind.window
        heads = config.num_heads * config.head_dim
        self.qkv = linear(D, 3 * heads)
        self.o = linear(heads, D)
        self.attention_norm = None if idle else _norm(config)
        self.up = linear(D, 2 * F if config.gated_mlp else F)  # gate, then up
        self.down = linear(F, D)
        self.mlp_norm = _norm(config)
        self.relative_bias = _distances(config, by_layer=True)

    def __call__(
        self,
        x: Float[Array, "B S D"],
        turn: Rotation | None,
        lengths: Int32[Array, " B"],
        bias: Float32[Array, "N distances"] | None = None,
    ) -> Float[Array, "B S D"]:
        first, second = self.attention_norm or identity, self.mlp_norm
        bias = bias if self.relative_bias is None else _bias(self.config, self.relative_bias)
        if self.config.norm_first:
            x = x + self._attend(first(x), turn, lengths, bias)
            return x + self._mlp(second(x))
        x = first(x + self._attend(x, turn, lengths, bias))
        return second(x + self._mlp(x))

    def _attend(
        self,
        x: Float[Array, "B S D"],
        turn: Rotation | None,
        lengths: Int32[Array, " B"],
        bias: Float32[Array, "N distances"] | None,
    ) -> Float[Array, "B S D"]:
        B, S, _ = x.shape
        N, H = self.config.num_heads, self.config.head_dim
        q, k, v = (part.reshape(B, S, N, H) for part in jnp.split(self.qkv(x), 3, axis=-1))
        if turn is not None:
            row: Any = jax.vmap(lambda heads: rotate(heads, turn))
            q, k = row(q), row(k)
        scale = self.config.attention_scale
        return self.o(attend(q, k, v, lengths, self.window, scale, bias).reshape(B, S, N * H))

    def _mlp(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        y, activation = self.up(x), ACTIVATIONS[self.config.activation]
        if not self.config.gated_mlp:
            return self.down(activation(y))
        gate, up = jnp.split(y, 2, axis=-1)
        return self.down(activation(gate) * up)


@jax.jit
def _run_layer(
    layer: EncoderLayer,
    x: Float[Array, "B S D"],
    turn: Rotation | None,
    lengths: Int32[Array, " B"],
    bias: Float32[Array, "N distances"] | None,
) -> Float[Array, "B S D"]:
    """Its own jit: layers of one kind are traced and compiled once."""
    return layer(x, turn, lengths, bias)


def attend(
    q: Float[Array, "B S N H"],
    k: Float[Array, "B S N H"],
    v: Float[Array, "B S N H"],
    lengths: Int32[Array, " B"],
    window: int | None,
    scale: float | None = None,
    bias: Float32[Array, "N distances"] | None = None,
) -> Float[Array, "B S N H"]:
    """Every query sees all keys of its row, or those at most `window` away; softmax in float32.

    Scores are multiplied by `scale`, or 1 / sqrt(H). A head's `bias` is of key - query, from
    -(distances // 2) on.
    """
    B, S, N, H = q.shape
    scale = H**-0.5 if scale is None else scale
    key = jnp.arange(S)
    alive = key < lengths[:, None]  # [B, S]

    def block(start: Array, queries: Float[Array, "B Q N H"]) -> Float[Array, "B Q N H"]:
        seen = alive[:, None, None]  # [B, 1, 1, S]
        offset = key - (start + jnp.arange(queries.shape[1]))[:, None]  # [Q, S]
        if window is not None:
            seen = seen & (jnp.abs(offset) <= window)
        scores = jnp.einsum("bqnh,bknh->bnqk", queries, k, preferred_element_type=jnp.float32)
        scores *= scale
        if bias is not None:
            reach = bias.shape[1] // 2
            scores += bias[:, jnp.clip(offset, -reach, reach) + reach]
        weights = _softmax(scores, seen).astype(v.dtype)
        return jnp.einsum("bnqk,bknh->bqnh", weights, v)

    if S <= _QUERIES:
        return block(jnp.int32(0), q)
    count = -(-S // _QUERIES)
    whole = jnp.pad(q, ((0, 0), (0, count * _QUERIES - S), (0, 0), (0, 0)))
    blocks = whole.reshape(B, count, _QUERIES, N, H).swapaxes(0, 1)
    out: Array = jax.lax.map(lambda each: block(*each), (jnp.arange(count) * _QUERIES, blocks))
    return out.swapaxes(0, 1).reshape(B, -1, N, H)[:, :S]


def _softmax(scores: Float[Array, "B N Q S"], seen: Bool[Array, "B _ _ S"]) -> Array:
    """A query that sees nothing, which only padding does, gets finite weights."""
    return jax.nn.softmax(jnp.where(seen, scores, _HIDDEN), axis=-1)


class Classifier(nnx.Module):
    """Scores of a pooled state, in float32."""

    def __init__(self, head: ClassifierHead, D: int, *, eps: float, dtype: DTypeLike):
        self.first = (
            Linear(D, D, axes=_AXES, bias=head.first_bias, dtype=dtype) if head.first else None
        )
        self.activation = HEAD_ACTIVATIONS[head.first] if head.first else identity
        self.norm = LayerNorm(D, eps=eps) if head.norm else None
        self.last = Linear(
            D, head.num_labels, axes=("embed", "choice"), bias=head.bias, dtype=dtype
        )

    def __call__(self, pooled: Float[Array, "B D"]) -> Float[Array, "B labels"]:
        x = pooled if self.first is None else self.activation(self.first(pooled))
        x = x if self.norm is None else self.norm(x)
        return self.last(x).astype(jnp.float32)


def _norm(config: EncoderConfig) -> LayerNorm | RMSNorm:
    kind = RMSNorm if config.norm == "rms" else LayerNorm
    return kind(config.hidden_size, eps=config.norm_eps)


def _distances(config: EncoderConfig, *, by_layer: bool) -> nnx.Param[Array] | None:
    """The numbers of a bias by distance, where it is kept: in each layer, or once."""
    kind = config.relative
    if kind is None or kind.by_layer != by_layer:
        return None
    return _table(kind.buckets, config.num_heads, jnp.float32)


def _bias(
    config: EncoderConfig, table: nnx.Param[Array] | None
) -> Float32[Array, "N distances"] | None:
    if config.relative is None or table is None:
        return None
    return two_sided_bias(config.relative, table[...])


def _table(rows: int, D: int, dtype: DTypeLike) -> nnx.Param[Array]:
    return nnx.Param(jnp.zeros((rows, D), dtype), axes=("position", "embed"))
