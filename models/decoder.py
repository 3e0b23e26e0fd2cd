"""One decoder for every family in `architectures/`.

Owns the equations. Knows no family by name: what differs is a field of `ModelConfig`. Knows nothing
of checkpoints, meshes or requests; the paged cache is `layers/attention.py`'s.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int32, Num

from models.config.decoder import LayerKind, ModelConfig
from models.layers.altup import Alternation, Laurel, Streams
from models.layers.attention import AttentionBatch, KVCache
from models.layers.given import Given
from models.layers.latent import LatentAttention
from models.layers.layer_inputs import InputGate, InputTable
from models.layers.low_rank import choose_slots
from models.layers.mixture import ExpertsBeside, MixtureOfExperts
from models.layers.mlp import MLP, GatedMLP, make_mlp
from models.layers.parts import LayerNorm, Linear, RMSNorm, identity, small_linear, softcap
from models.layers.rope import RopeConfig, Rotation, rotation
from models.layers.self_attention import Attention
from models.layers.shared_blocks import BlockUse, Lent, SharedBlock
from models.layers.site import Site
from models.mixers import make_mixer
from models.pool import make_pool
from pallas_kernels.across import product_across

Norm = Callable[[Array], Array]


class Decoder(nnx.Module):
    """Tokens and a paged cache in, hidden states and the cache out.

    Parameters are zeros until loaded, so make it under `nnx.eval_shape`. With `shards` > 1 the
    columns of fused kernels are grouped by shard (see `weights/`), KV heads are repeated until
    every shard has one, and the vocabulary is padded to a multiple of `shards`.

    Raises:
        UnsupportedError: heads, MLP or experts do not divide among `shards`.
    """

    def __init__(self, config: ModelConfig, *, dtype: DTypeLike, shards: int = 1):
        config.check_shards(shards)
        D, positions = config.hidden_size, config.max_position_embeddings
        V, P = -(-config.vocab_size // shards) * shards, config.embedding_size or D
        axes, bias = ("embed", "vocab"), config.head_bias
        head = partial(Linear, P, V, axes=axes, bias=bias, dtype=dtype)
        rows = positions + config.position_offset
        places = partial(_embedding, rows, D, ("position", "embed"), dtype)
        self.config, self.shards = config, shards
        self.embedding = _embedding(V, P, ("vocab", "embed"), dtype)
        projected = config.embedding_size is not None
        self.project_in = small_linear(P, D, dtype) if projected else None
        self.project_out = small_linear(D, P, dtype) if projected else None
        self.embedding_norm = make_norm(config) if config.embedding_norm else identity
        self.position_embedding = places() if config.learned_positions else None
        self.layers = nnx.List(self.make_layer(kind, dtype, shards) for kind in config.layer_kinds)
        inputs, altup = config.layer_inputs, config.altup
        self.layer_inputs = InputTable(config, inputs, dtype, shards) if inputs else None
        self.streams = Streams(config, altup, dtype) if altup is not None else None
        self.blocks = nnx.List(_blocks(config, dtype, shards))
        self.norm = identity if config.norm_sums else make_norm(config)
        self.head = None if config.tied_head else head()

    def make_layer(self, kind: LayerKind, dtype: DTypeLike, shards: int) -> "Layer":
        """One of its layers."""
        return Layer(self.config, kind, dtype, shards)

    def embed(
        self,
        tokens: Int32[Array, " T"],
        positions: Int32[Array, " T"],
        given: Given | None = None,
    ) -> Float[Array, "T D"]:
        """What the first layer reads."""
        x = self.embedding[...][tokens]  # [T, D], or [T, P] if it is projected
        if given is not None and self.config.scales_given:
            x = given.put(x)
        if self.config.embedding_scale != 1.0:
            x = x * jnp.asarray(self.config.embedding_scale, x.dtype)
        x = x if self.project_in is None else self.project_in(x)
        if given is not None and not self.config.scales_given:
            x = given.put(x)
        if self.position_embedding is not None:
            x = x + self.position_embedding[...][positions + self.config.position_offset]
        return self.embedding_norm(x)

    def __call__(
        self,
        tokens: Int32[Array, " T"],
        positions: Int32[Array, " T"],
        batch: AttentionBatch,
        cache: KVCache,
        given: Given | None = None,
    ) -> tuple[Float[Array, "T D"], KVCache]:
        """Hidden states behind the final norm, and the cache with this step's keys and values."""
        x = self.embed(tokens, positions, given)  # [T, D]
        inputs = self.layer_inputs(tokens, x) if self.layer_inputs is not None else None
        x = x if self.streams is None else self.streams.open(x)  # [S, T, D]
        handed = [*self.run_layers(x, positions, batch, cache, inputs)]
        x, cache = handed[-1]
        x = x if self.streams is None else self.streams.close(x)
        routed = self._stacked([each.routed for _, each in handed]) if batch.keeps_routed else None
        return self.norm(x), cache._replace(chosen=None, routed=routed)

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
        places = make_pool(self.config, self.shards, batch.backend).places
        layers = zip(self.layers, self.config.layer_kinds, ropes, strict=True)
        for number, (layer, kind, rope) in enumerate(layers):
            index = jnp.int32(places[number])
            place = jnp.int32(states) if kind.mixer else None
            own: Array | Lent | None = None if given is None else given[:, number]
            if kind.block:
                own = Lent(next(blocks), embedded)
            site = Site(index, place, turns.get(rope), batch)
            x, cache = _run_layer(layer, x, site, cache, own)
            states += kind.mixer
            yield x, cache
            cache = cache._replace(routed=None)

    def _stacked(self, routed: Sequence[Array | None]) -> Num[Array, "T L k"]:
        """The experts of all layers; 0 in those that have none."""
        if self.config.mixture is None:
            raise TypeError(f"{self.config.architecture} has no experts")
        none = jnp.zeros_like(next(experts for experts in routed if experts is not None))
        every = [none if experts is None else experts for experts in routed]
        return jnp.stack(every, axis=1).astype(self.config.mixture.choice_dtype)

    def narrowed(self, hidden: Float[Array, "B D"]) -> Float[Array, "B P"]:
        """What the head reads, which is as wide as an embedding."""
        return hidden if self.project_out is None else self.project_out(hidden)

    def logits(self, hidden: Float[Array, "B D"]) -> Float32[Array, "B V"]:
        """Scores of the next token, in float32."""
        hidden = self.narrowed(hidden)
        if self.head is None:
            scores = product_across(hidden, self.embedding[...], jnp.float32)
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
        altup, inputs = config.altup, config.layer_inputs
        before, behind = config.norms_before(kind), config.norms_behind(kind)
        own_norm = before and config.parallel != "one norm"
        mixes = kind.attention or kind.mixer
        self.config = config
        self.attention_norm = make_norm(config) if before and mixes else identity
        attends = kind.attention and not kind.block
        self.attention = _attention(config, kind, dtype, shards) if attends else None
        stated = config.mixer if kind.mixer else None
        self.mixer = make_mixer(config, stated, dtype) if stated is not None else None
        self.attention_post_norm = make_norm(config) if behind and mixes else identity
        self.mlp_norm = make_norm(config) if own_norm and kind.mlp else identity
        self.mlp = _mlp(config, kind, dtype, shards) if kind.mlp else None
        mixture = config.mixture if kind.experts else None
        beside = mixture is not None and mixture.beside_mlp
        self.beside = ExpertsBeside(config, mixture, dtype, shards) if mixture and beside else None
        self.mlp_own_norm = make_norm(config) if beside else identity
        self.mlp_post_norm = make_norm(config) if behind and kind.mlp else identity
        self.laurel = Laurel(config, altup.laurel_rank, dtype) if altup is not None else None
        self.altup = Alternation(config, altup, dtype) if altup is not None else None
        lent = config.blocks if kind.block else None
        self.use = BlockUse(config, lent, dtype, shards) if lent is not None else None
        self.input_gate = InputGate(config, inputs, dtype) if inputs is not None else None
        scale = partial(nnx.Param, jnp.zeros(1, jnp.float32), axes=("norm",))
        self.scale = scale() if config.layer_scale else None

    def __call__(
        self,
        x: Float[Array, "*S T D"],
        site: Site,
        cache: KVCache,
        given: Float[Array, "T P"] | Lent | None = None,
    ) -> tuple[Float[Array, "*S T D"], KVCache]:
        if isinstance(given, Lent):
            return self._with_block(x, site, cache, given)
        streams = x if self.altup is None else self.altup.predict(x)
        x = x if self.altup is None else streams[self.altup.altup.active]
        x, cache = self._block(x, site, cache)
        if self.input_gate is not None:
            if given is None:
                raise TypeError("a layer with an input of its own is given none")
            if self.altup is not None:
                return self.altup.correct(streams, x, self.input_gate, given), cache
            x = x + self.input_gate(x, given)
        return x if self.scale is None else x * self.scale[...].astype(x.dtype), cache

    def _block(
        self,
        x: Float[Array, "T D"],
        site: Site,
        cache: KVCache,
    ) -> tuple[Float[Array, "T D"], KVCache]:
        normed = self._before(self.attention_norm, x)  # [T, D]
        h, cache = self._mix(normed, site, cache)
        attended = x if h is None else x + self._scaled(self.attention_post_norm(h))
        attended = self._behind(self.attention_norm, attended)
        if self.laurel is not None:
            attended = (attended + self.laurel(normed)) * jnp.asarray(0.5**0.5, x.dtype)
        if self.mlp is None:
            return attended, cache
        match self.config.parallel:
            case None:
                h = self._before(self.mlp_norm, attended)
            case "one norm":
                h = normed
            case "two norms":
                h = self.mlp_norm(x)
        routed = None
        if isinstance(self.mlp, MixtureOfExperts):
            h, routed = self.mlp(h, site.batch)
        else:
            h = self.mlp(h)
        if self.beside is not None:
            added, routed = self.beside(attended, site.batch)
            h = self.mlp_own_norm(h) + added
        if site.batch.keeps_routed:
            cache = cache._replace(routed=routed)
        return self._behind(self.mlp_norm, attended + self._scaled(self.mlp_post_norm(h))), cache

    def _before(self, norm: Norm, x: Float[Array, "T D"]) -> Float[Array, "T D"]:
        return x if self.config.norm_sums else norm(x)

    def _behind(self, norm: Norm, x: Float[Array, "T D"]) -> Float[Array, "T D"]:
        return norm(x) if self.config.norm_sums else x

    def _with_block(
        self,
        x: Float[Array, "T D"],
        site: Site,
        cache: KVCache,
        lent: Lent,
    ) -> tuple[Float[Array, "T D"], KVCache]:
        """What the block gives reaches the next layer through the mixer only."""
        if self.use is None:
            raise TypeError("this layer has no place for a block")
        added, cache = self.use(lent, x, site, cache)
        h, cache = self._mix(self.attention_norm(x + added), site, cache)
        return x if h is None else x + self._scaled(h), cache

    def _mix(
        self,
        x: Float[Array, "T D"],
        site: Site,
        cache: KVCache,
    ) -> tuple[Float[Array, "T D"] | None, KVCache]:
        """What attention and the mixer add, if the layer has one of them."""
        h = None
        if self.attention is not None:
            h, cache = self.attention(x, site, cache)
        if self.mixer is not None:
            if cache.states is None or site.state is None:
                raise TypeError("a layer with a state needs a cache with states")
            mixed, states = self.mixer(site.state, x, site.batch, cache.states)
            h, cache = mixed if h is None else h + mixed, cache._replace(states=states)
        return h, cache

    def _scaled(self, h: Float[Array, "T D"]) -> Float[Array, "T D"]:
        scale = self.config.residual_scale
        return h if scale == 1.0 else h * jnp.asarray(scale, h.dtype)


@jax.jit
def _run_layer(
    layer: Layer,
    x: Float[Array, "*S T D"],
    site: Site,
    cache: KVCache,
    given: Float[Array, "T P"] | Lent | None = None,
) -> tuple[Float[Array, "*S T D"], KVCache]:
    """Its own jit, with the indices as arrays: layers of one kind are traced and compiled once."""
    if site.batch.adapter is not None:
        choose_slots(layer, site.batch.adapter)
    return layer(x, site, cache, given)


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
    if kind.experts and config.mixture is not None and not config.mixture.beside_mlp:
        return MixtureOfExperts(config, config.mixture, dtype, shards)
    size = kind.mlp_size or config.intermediate_size
    return make_mlp(config, size, dtype, shards, kind.sparsity)


def make_norm(config: ModelConfig) -> RMSNorm | LayerNorm:
    """A norm of hidden states."""
    size, eps, offset = config.hidden_size, config.norm_eps, config.norm_offset
    if config.norm == "rms":
        return RMSNorm(size, eps=eps, offset=offset)
    weight, bias = config.norm_weight, config.norm_bias
    return LayerNorm(size, eps=eps, offset=offset, weight=weight, bias=bias)
