"""Embeddings that come with a prompt, in the places of some of a step's tokens.

They stand where the model's own embedding layer has its output: what is done with that behind the
layer (a scale of the model, positions, a norm) is done with them too. Refuses to know requests.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from models.config.decoder import ModelConfig


class Given(NamedTuple):
    """`rows[t]` is the embedding of token t where `places[t]`; other rows mean nothing."""

    places: Bool[Array, " T"]
    rows: Float[Array, "T D"]

    def put(self, x: Float[Array, "T D"]) -> Float[Array, "T D"]:
        """`x` with these in their places."""
        return jnp.where(self.places[:, None], self.rows.astype(x.dtype), x)


def unable(config: ModelConfig) -> str | None:
    """Why a model cannot take embeddings of its layers' width in the place of token ids, if so."""
    if config.encoder is not None:
        return "its prompts are read by an encoder"
    if config.layer_inputs is not None:
        return "each of its layers has inputs of its own, found by token ids"
    if config.embedding_size is not None:
        return "its embeddings are narrower than its layers"
    return None
