"""What each layer of a loaded model that gives vectors gives for one sequence of tokens.

Owns encoders; decoders run as in `trace.py`. What the engine made of the states is given to it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from engine.check.trace import Trace, encoder_states, run_decoder, state_names
from models.config.decoder import ModelConfig
from models.pooling_loading import LoadedPooler


def trace_pooler(
    model: LoadedPooler, tokens: list[int], types: list[int], vector: np.ndarray
) -> Trace:
    """Run `model` over `tokens`, all at once.

    Args:
        types: of which text of a pair each token is; [] is all of the first.
        vector: what the engine gave, [W] or one a token: "vector", or "scores" of classes.
    """
    if isinstance(model.config, ModelConfig):
        states, _ = run_decoder(model, tokens, lambda pooler: pooler.body, lambda _, hidden: hidden)
    else:
        states = _encoder_states(model, tokens, types or [0] * len(tokens))
    rows = vector.reshape(-1, vector.shape[-1])
    return Trace(states, rows, "scores" if model.spec.task == "classify" else "vector")


def _encoder_states(
    model: LoadedPooler, tokens: list[int], types: list[int]
) -> dict[str, np.ndarray]:
    def run(leaves: tuple[Array, ...], ids: Array, kinds: Array) -> list[Array]:
        encoder = model.layout.unflatten(leaves).body
        x = encoder.embed(ids, kinds)
        return [state.astype(jnp.float32) for state in encoder_states(encoder, x)]

    rows = (np.asarray(one, np.int32)[None] for one in (tokens, types))
    states = map(np.asarray, jax.jit(run)(model.leaves, *rows))
    return dict(zip(state_names(model.config.num_layers), states, strict=True))
