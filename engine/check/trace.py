"""What each layer of a loaded decoder gives for one sequence of tokens.

Owns running the layers in the open. The engine's own step does the same in one program, of which
only the sampled tokens come out.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.typing import DTypeLike

from engine.cache.state_slots import StateLayout
from models.checkpoints.loading import LoadedModel
from models.config.decoder import ModelConfig
from models.decoder import Decoder
from models.encoder import Encoder
from models.encoder_decoder import EncoderDecoder
from models.layers.attention import EncodedRows, KVCache, mixed_batch
from models.layers.states import States, state_rows
from models.pool import make_pool
from models.pooling_loading import LoadedPooler
from models.sharding import named_sharding
from pallas_kernels import Backend

PAGE_SIZE = 16
Source = list[int] | np.ndarray  # ids, or a spectrogram [frames, mels]
SLOTS = 2  # of a layer with a state: the sequence's, and padding's, which has none


@dataclass(frozen=True)
class Trace:
    """One sequence through a model, on the host.

    states: name -> [T, D], in order: the embedding, what each layer hands on, and instead of what
        the last layer hands on, that behind the final norm. Of layers that hand on several streams
        (Gemma 3n) the first and the last of these. Before a decoder's are its encoder's, [S, D].
    logits: [T, V], of the token behind each; or what else comes of the states, by its name `what`.
    """

    states: dict[str, np.ndarray]
    logits: np.ndarray
    what: str = "logits"


def trace(model: LoadedModel, tokens: list[int], read: Source | None = None) -> Trace:
    """Run `model` over `tokens`, all in one step; its encoder, if it has one, over `read`."""
    itself, head = lambda decoder: decoder, lambda decoder, x: decoder.logits(x)
    return Trace(*run_decoder(model, tokens, itself, head, read))


def run_decoder(
    model: LoadedModel | LoadedPooler,
    tokens: list[int],
    body: Callable[[Any], Decoder],
    finish: Callable[[Decoder, Array], Array],
    read: Source | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The states of the decoder that is the `body` of a model, and what `finish` makes of them."""
    T, config = len(tokens), model.config
    if not isinstance(config, ModelConfig):
        raise TypeError(f"{config.architecture} is no decoder")
    own = 1 + -(-T // PAGE_SIZE)  # page 0 is never read
    heard = isinstance(read, np.ndarray)
    S = 0 if read is None else len(read) // (2 if heard else 1)
    pages = own + -(-S // PAGE_SIZE)

    def run(
        leaves: tuple[Array, ...], ids: Array, cache: KVCache, source: Array | None
    ) -> tuple[list[Array], Array]:
        decoder = body(model.layout.unflatten(leaves))
        positions = jnp.arange(T, dtype=jnp.int32)
        start, count = jnp.zeros(1, jnp.int32), jnp.full(1, T, jnp.int32)
        table = jnp.arange(1, own, dtype=jnp.int32)[None]
        batch = mixed_batch(table, start, count, positions, pages, model.mesh)
        if cache.states is not None:
            slots = jnp.zeros(1, jnp.int32)
            batch = replace(batch, states=state_rows(start, count, slots, positions, SLOTS))
        encoded: list[Array] = []
        if isinstance(decoder, EncoderDecoder) and source is not None:
            there = EncodedRows(jnp.arange(own, pages, dtype=jnp.int32)[None], jnp.full(1, S))
            encoded = encoder_states(decoder.encoder, decoder.embed_source(source))
            cache = decoder.encode(source, there, cache, pages_per_layer=pages)
            batch = replace(batch, encoded=there)
        states = [decoder.embed(ids, positions)]
        given = decoder.layer_inputs(ids, states[0]) if decoder.layer_inputs is not None else None
        streams = decoder.streams
        first = states[0] if streams is None else streams.open(states[0])
        handed = [x for x, _ in decoder.run_layers(first, positions, batch, cache, given)]
        states += handed if streams is None else [streams.close(handed[-1])]
        last = decoder.norm(states[-1])
        states[-1] = decoder.narrowed(last)
        states = [*encoded, *states]
        return [state.astype(jnp.float32) for state in states], finish(decoder, last)

    source = None if read is None else np.asarray(read, np.float32 if heard else np.int32)
    states, last = jax.jit(run)(
        model.leaves, np.asarray(tokens, np.int32), _empty_cache(model, config, pages), source
    )
    names = state_names(config.num_layers)
    if config.encoder is not None:
        names = [*encoder_names(config.encoder.num_layers), *names]
    if len(states) < len(names):
        names = [names[0], names[-1]]
    return dict(zip(names, map(np.asarray, states), strict=True)), np.asarray(last)


def state_names(layers: int) -> list[str]:
    """ "embedding", "layer 0", ..., and of the last one "layer 31, normed"."""
    return ["embedding", *(f"layer {n}" for n in range(layers - 1)), f"layer {layers - 1}, normed"]


def encoder_names(layers: int) -> list[str]:
    """The same, of a decoder's encoder."""
    return [f"encoder's {name}" for name in state_names(layers)]


def encoder_states(encoder: Encoder, x: Array) -> list[Array]:
    """What an encoder's layers give for one row, [1, S, D], each [S, D]; the last one is normed."""
    states = [x, *encoder.run_layers(x, jnp.full(1, x.shape[1], jnp.int32))]
    if encoder.norm is not None:
        states[-1] = encoder.norm(states[-1])
    return [state[0] for state in states]


def _empty_cache(model: LoadedModel | LoadedPooler, config: ModelConfig, pages: int) -> KVCache:
    pool = make_pool(config, model.mesh.size, Backend.XLA)
    shape = (pool.rows * pages, pool.heads, PAGE_SIZE, pool.head_dim)
    sharding = named_sharding(model.mesh, (None, "heads", None, None))
    tables = {"embedding", "body.embedding"}
    dtype = next(leaf.dtype for leaf in model.layout.leaves if tables & {*leaf.paths})
    keys, values = (jax.device_put(jnp.zeros(shape, dtype), sharding) for _ in "kv")
    values = None if config.latent is not None else values
    index = None
    if config.latent is not None and config.latent.index is not None:
        index = jnp.zeros((*shape[:3], config.latent.index.dim), dtype)
        index = jax.device_put(index, sharding)
    return KVCache(keys, values, states=_empty_states(config, model.mesh, dtype), index_keys=index)


def _empty_states(config: ModelConfig, mesh: Mesh, dtype: DTypeLike) -> States | None:
    mixer = config.mixer
    if mixer is None:
        return None
    conv = mixer.conv_width - 1, mixer.conv_channels
    layout = StateLayout(config.num_mixers, SLOTS, conv, mixer.scan, dtype)
    states: States = jax.device_put(layout.zeros(), named_sharding(mesh, ()))
    return states
