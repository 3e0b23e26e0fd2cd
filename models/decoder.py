"""One decoder for every family in `architectures/`.

Owns the equations. Knows no family by name: what differs is a field of `ModelConfig`. Knows nothing
of checkpoints, meshes or requests; the paged cache is `attention.py`'s.
"""

from collections.abc import Iterator
from functools import partial
from itertools import cycle

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int32

from models.altup import Alternation, Laurel, Streams
from models.attention import AttentionBatch, KVCache, paged_attention
from models.config import LayerKind, ModelConfig
from models.latent import LatentAttention
from models.layers import LayerNorm, Linear, RMSNorm, join_columns, softcap, split_columns
from models.mixers import make_mixer
from models.mixture import MixtureOfExperts
from models.mlp import MLP, GatedMLP, make_mlp
from models.qk_norms import has_norm, head_norm, norm_heads, norms_of_write
from models.rope import RopeConfig, Rotation, rotation
from models.shared_blocks import BlockUse, Lent, SharedBlock
from pallas_kernels import rms_norm


class Decoder(nnx.Module):
    """Tokens and a paged cache in, hidden states and the cache out.

    Parameters are zeros until loaded, so make it under `nnx.eval_shape`. With `shards` > 1 the
    columns of fused kernels are grouped by shard (see `weights.py`), KV heads are repeated until
    every shard has one, and the vocabulary is padded to a multiple of `shards`.

    Raises:
        UnsupportedError: heads or MLP do not divide among `shards`.
    """

    def __init__(self, config: ModelConfig, *, dtype: DTypeLike, shards: int = 1):
        D, positions = config.hidden_size, config.max_position_embeddings
        V = -(-config.vocab_size // shards) * shards
        axes, bias = ("embed", "vocab"), config.head_bias
        head = partial(Linear, D, V, axes=axes, bias=bias, dtype=dtype)
        rows = positions + config.position_offset
        places = partial(_embedding, rows, D, ("position", "embed"), dtype)
        self.config = config
        self.embedding = _embedding(V, D, ("vocab", "embed"), dtype)
        self.embedding_norm = make_norm(config) if config.embedding_norm else _identity
        self.position_embedding = places() if config.learned_positions else None
        self.layers = nnx.List(self.make_layer(kind, dtype, shards) for kind in config.layer_kinds)
        altup = config.altup
        self.streams = Streams(config, altup, dtype, shards) if altup is not None else None
        self.blocks = nnx.List(_blocks(config, dtype, shards))
        self.norm = _identity if config.norm_sums else make_norm(config)
        self.head = None if config.tied_head else head()

    def make_layer(self, kind: LayerKind, dtype: DTypeLike, shards: int) -> "Layer":
        """One of its layers."""
        return Layer(self.config, kind, dtype, shards)

    def embed(
        self, tokens: Int32[Array, " T"], positions: Int32[Array, " T"]
    ) -> Float[Array, "T D"]:
        """What the first layer reads."""
        x = self.embedding[...][tokens]  # [T, D]
        if self.config.embedding_scale != 1.0:
            x = x * jnp.asarray(self.config.embedding_scale, x.dtype)
        if self.position_embedding is not None:
            x = x + self.position_embedding[...][positions + self.config.position_offset]
        return self.embedding_norm(x)

    def __call__(
        self,
        tokens: Int32[Array, " T"],
        positions: Int32[Array, " T"],
        batch: AttentionBatch,
        cache: KVCache,
    ) -> tuple[Float[Array, "T D"], KVCache]:
        """Hidden states behind the final norm, and the cache with this step's keys and values."""
        x, given = self.embed(tokens, positions), None  # [T, D]
        if self.streams is not None:
            x, given = self.streams.open(x), self.streams.inputs(tokens, x)  # [S, T, D], [T, L, P]
        *_, (x, cache) = self.run_layers(x, positions, batch, cache, given)
        x = x if self.streams is None else self.streams.close(x)
        return self.norm(x), cache._replace(chosen=None)

    def run_layers(
        self,
        x: Float[Array, "*S T D"],
        positions: Int32[Array, " T"],
        batch: AttentionBatch,
        cache: KVCache,
        given: Float[Array, "T L P"] | None = None,
    ) -> Iterator[tuple[Float[Array, "*S T D"], KVCache]]:
        """What each layer hands to the next, and the cache that it has written into."""
        ropes = [kind.rope for kind in self.config.layer_kinds]
        context = self.config.context_length
        turns: dict[RopeConfig | None, Rotation] = {
            rope: rotation(rope, positions, context) for rope in set(ropes) if rope
        }
        states = 0  # layers before that have some
        embedded, blocks = x, cycle(self.blocks)
        layers = zip(self.layers, self.config.layer_kinds, ropes, strict=True)
        for number, (layer, kind, rope) in enumerate(layers):
            index = np.int32(self.config.kv_places[number])
            place = np.int32(states) if kind.mixer else None
            own: Array | Lent | None = None if given is None else given[:, number]
            if kind.block:
                own = Lent(next(blocks), embedded)
            x, cache = _run_layer(layer, index, place, x, turns.get(rope), batch, cache, own)
            states += kind.mixer
            yield x, cache

    def logits(self, hidden: Float[Array, "B D"]) -> Float32[Array, "B V"]:
        """Scores of the next token, in float32."""
        if self.head is None:
            weight = self.embedding[...]
            scores = jnp.einsum("bd,vd->bv", hidden, weight, preferred_element_type=jnp.float32)
        else:
            scores = self.head.product(hidden, jnp.float32)
        if self.head is not None and self.head.bias is not None:
            scores = scores + self.head.bias[...]
        scores = scores[:, : self.config.vocab_size] * self.config.logit_scale
        return softcap(scores, self.config.logit_softcap)


class Layer(nnx.Module):
    """x += attention(norm(x)), then x += mlp(norm(x)); or both in parallel, x += the two sums.

    Some families norm what is added instead, or as well. A mixer with a state stands in the place
    of attention or beside it, and a layer may have one of the two steps only.
    """

    def __init__(self, config: ModelConfig, kind: LayerKind, dtype: DTypeLike, shards: int):
        altup = config.altup
        before, behind = config.norms_before(kind), config.norms_behind(kind)
        own_norm = before and config.parallel != "one norm"
        mixes = kind.attention or kind.mixer
        self.config = config
        self.attention_norm = make_norm(config) if before and mixes else _identity
        attends = kind.attention and not kind.block
        self.attention = _attention(config, kind, dtype, shards) if attends else None
        stated = config.mixer if kind.mixer else None
        self.mixer = make_mixer(config, stated, dtype) if stated is not None else None
        self.attention_post_norm = make_norm(config) if behind and mixes else _identity
        self.mlp_norm = make_norm(config) if own_norm and kind.mlp else _identity
        self.mlp = _mlp(config, kind, dtype, shards) if kind.mlp else None
        self.mlp_post_norm = make_norm(config) if behind and kind.mlp else _identity
        self.laurel = Laurel(config, altup.laurel_rank, dtype) if altup is not None else None
        self.altup = Alternation(config, altup, dtype) if altup is not None else None
        lent = config.blocks if kind.block else None
        self.use = BlockUse(config, lent, dtype, shards) if lent is not None else None

    def __call__(
        self,
        index: Int32[Array, ""],
        place: Int32[Array, ""] | None,
        x: Float[Array, "*S T D"],
        turn: Rotation | None,
        batch: AttentionBatch,
        cache: KVCache,
        given: Float[Array, "T P"] | Lent | None = None,
    ) -> tuple[Float[Array, "*S T D"], KVCache]:
        if isinstance(given, Lent):
            return self._with_block(index, place, x, turn, batch, cache, given)
        if self.altup is None:
            return self._block(index, place, x, turn, batch, cache)
        if given is None:
            raise TypeError("a layer of several streams has an input of its own")
        x = self.altup.predict(x)
        one = x[self.altup.altup.active]
        out, cache = self._block(index, place, one, turn, batch, cache)
        return self.altup.correct(x, out, given), cache

    def _block(
        self,
        index: Int32[Array, ""],
        place: Int32[Array, ""] | None,
        x: Float[Array, "T D"],
        turn: Rotation | None,
        batch: AttentionBatch,
        cache: KVCache,
    ) -> tuple[Float[Array, "T D"], KVCache]:
        normed = self.attention_norm(x)  # [T, D]
        h, cache = self._mix(index, place, normed, turn, batch, cache)
        attended = x if h is None else x + self._scaled(self.attention_post_norm(h))
        if self.laurel is not None:
            attended = (attended + self.laurel(normed)) * jnp.asarray(0.5**0.5, x.dtype)
        if self.mlp is None:
            return attended, cache
        match self.config.parallel:
            case None:
                h = self.mlp_norm(attended)
            case "one norm":
                h = normed
            case "two norms":
                h = self.mlp_norm(x)
        h = self.mlp(h, batch) if isinstance(self.mlp, MixtureOfExperts) else self.mlp(h)
        return attended + self._scaled(self.mlp_post_norm(h)), cache

    def _with_block(
        self,
        index: Int32[Array, ""],
        place: Int32[Array, ""] | None,
        x: Float[Array, "T D"],
        turn: Rotation | None,
        batch: AttentionBatch,
        cache: KVCache,
        lent: Lent,
    ) -> tuple[Float[Array, "T D"], KVCache]:
        """What the block gives reaches the next layer through the mixer only."""
        if self.use is None:
            raise TypeError("this layer has no place for a block")
        added, cache = self.use(lent, index, x, turn, batch, cache)
        h, cache = self._mix(index, place, self.attention_norm(x + added), turn, batch, cache)
        return x if h is None else x + self._scaled(h), cache

    def _mix(
        self,
        index: Int32[Array, ""],
        place: Int32[Array, ""] | None,
        x: Float[Array, "T D"],
        turn: Rotation | None,
        batch: AttentionBatch,
        cache: KVCache,
    ) -> tuple[Float[Array, "T D"] | None, KVCache]:
        """What attention and the mixer add, if the layer has one of them."""
        h = None
        if self.attention is not None:
            h, cache = self.attention(index, x, turn, batch, cache)
        if self.mixer is not None:
            if cache.states is None or place is None:
                raise TypeError("a layer with a state needs a cache with states")
            mixed, states = self.mixer(place, x, batch, cache.states)
            h, cache = mixed if h is None else h + mixed, cache._replace(states=states)
        return h, cache

    def _scaled(self, h: Float[Array, "T D"]) -> Float[Array, "T D"]:
        scale = self.config.residual_scale
        return h if scale == 1.0 else h * jnp.asarray(scale, h.dtype)


@jax.jit
def _run_layer(
    layer: Layer,
    index: Int32[Array, ""],
    place: Int32[Array, ""] | None,
    x: Float[Array, "*S T D"],
    turn: Rotation | None,
    batch: AttentionBatch,
    cache: KVCache,
    given: Float[Array, "T P"] | Lent | None = None,
) -> tuple[Float[Array, "*S T D"], KVCache]:
    """Its own jit, with the index as an array: layers of one kind are traced and compiled once."""
    return layer(index, place, x, turn, batch, cache, given)


class Attention(nnx.Module):
    """Causal attention of N query heads over K key/value heads in the paged cache."""

    def __init__(self, config: ModelConfig, kind: LayerKind, dtype: DTypeLike, shards: int):
        D, N, H = config.attended_size, config.num_heads, config.head_dim
        K = config.cache_kv_heads(shards)
        self.config, self.shards = config, shards
        self.widths = (N * H, K * H, K * H)
        self.window, self.chunk = config.visible(kind.window), config.visible(kind.chunk)
        self.qk_norm = config.qk_norm if has_norm(config.qk_norm, kind.rope) else None
        growth = config.score_growth
        self.growth = growth if growth and (growth.rotated or kind.rope is None) else None
        self.shared = kind.shared
        project = partial(Linear, D, axes=("embed", "heads"), bias=config.qkv_bias, dtype=dtype)
        if kind.shared:
            self.q = project(N * H)
        else:
            self.qkv = project(sum(self.widths))
        out = config.hidden_size
        self.o = Linear(N * H, out, axes=("heads", "embed"), bias=config.o_bias, dtype=dtype)
        self.q_norm, self.k_norm = (
            head_norm(config, self.qk_norm, heads) if self.qk_norm and heads else None
            for heads in (N, 0 if kind.shared else K)
        )
        self.sinks = nnx.Param(jnp.zeros(N, jnp.float32), axes=("heads",)) if config.sinks else None
        gate = partial(Linear, D, N * H, axes=("embed", "heads"), bias=config.qkv_bias, dtype=dtype)
        self.gate = gate() if config.output_gate else None

    def __call__(
        self,
        index: Int32[Array, ""],
        x: Float[Array, "T I"],
        turn: Rotation | None,
        batch: AttentionBatch,
        cache: KVCache,
        added: Float[Array, "T columns"] | None = None,
    ) -> tuple[Float[Array, "T D"], KVCache]:
        """`added` to queries, keys and values, as their product has them."""
        norms = norms_of_write(self.config, self.qk_norm, self.q_norm, self.k_norm)
        qkv = self._queries(x) if self.shared else self._clipped(self.qkv(x))  # [T, (N+2K)H]
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
            head_dim=self.config.head_dim,
            scale=self.config.score_scale,
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

    def _queries(self, x: Float[Array, "T D"]) -> Float[Array, "T columns"]:
        """Queries, and zeros in the place of keys and values, which nobody reads."""
        nothing = jnp.zeros((x.shape[0], self.widths[1]), x.dtype)
        return join_columns(self.shards, self.q(x), nothing, nothing)

    def _with_normed_values(self, qkv: Float[Array, "T columns"]) -> Float[Array, "T columns"]:
        q, k, v = split_columns(qkv, self.shards, *self.widths)
        heads = v.reshape(v.shape[0], -1, self.config.head_dim)
        ones = jnp.ones(self.config.head_dim, jnp.float32)
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
        kind, H = self.qk_norm, self.config.head_dim
        if kind is None or self.q_norm is None or self.k_norm is None:
            return qkv, turn
        q, k, v = split_columns(qkv, self.shards, *self.widths)
        q, k = norm_heads(kind, self.q_norm, q, H, turn), norm_heads(kind, self.k_norm, k, H, turn)
        return join_columns(self.shards, q, k, v), None if kind.rotated else turn


def _embedding(rows: int, D: int, axes: tuple[str, str], dtype: DTypeLike) -> nnx.Param[Array]:
    return nnx.Param(jnp.zeros((rows, D), dtype), axes=axes)


def _attention(
    config: ModelConfig, kind: LayerKind, dtype: DTypeLike, shards: int
) -> Attention | LatentAttention:
    if config.latent is not None:
        return LatentAttention(config, config.latent, kind, dtype)
    return Attention(config, kind, dtype, shards)


def _blocks(config: ModelConfig, dtype: DTypeLike, shards: int) -> Iterator[SharedBlock]:
    """Those that layers have, in the order in which these take them."""
    for index in config.first_block_layers:
        attention = Attention(config, config.layer_kinds[index], dtype, shards)
        mlp = GatedMLP(config, config.intermediate_size, dtype, shards)
        yield SharedBlock(config, attention, mlp)


def _mlp(
    config: ModelConfig, kind: LayerKind, dtype: DTypeLike, shards: int
) -> GatedMLP | MLP | MixtureOfExperts:
    if kind.experts and config.mixture is not None:
        return MixtureOfExperts(config, config.mixture, dtype, shards)
    return make_mlp(config, config.intermediate_size, dtype, shards, kind.sparsity)


def make_norm(config: ModelConfig) -> RMSNorm | LayerNorm:
    """A norm of hidden states."""
    size, eps, offset = config.hidden_size, config.norm_eps, config.norm_offset
    if config.norm == "rms":
        return RMSNorm(size, eps=eps, offset=offset)
    weight, bias = config.norm_weight, config.norm_bias
    return LayerNorm(size, eps=eps, offset=offset, weight=weight, bias=bias)


def _identity(x: Array) -> Array:
    return x
