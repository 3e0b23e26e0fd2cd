"""What each layer is given of a token besides hidden states: from a table, and from its embedding.

    token ─ table ─ + norm of a projection of x ─> given [T, L, P], one a layer
    x [T, D] ─ gate ─ activation ─ * given of the layer ─ project ─ norm ─> [T, D], to be added

Knows nothing of attention and MLP. Source: Gemma 3n's and Gemma 4's published model code.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int32

from models.config.decoder import LayerInputs, ModelConfig
from models.layers.parts import ACTIVATIONS, RMSNorm, small_linear


class InputTable(nnx.Module):
    """The inputs of all layers."""

    def __init__(self, config: ModelConfig, inputs: LayerInputs, dtype: DTypeLike, shards: int):
        D, P, L = config.hidden_size, inputs.size, config.num_layers
        rows = -(-inputs.table_rows // shards) * shards
        self.inputs, self.num_layers = inputs, L
        self.table = nnx.Param(jnp.zeros((rows, L * P), dtype), axes=("vocab", "embed"))
        self.projection = small_linear(D, L * P, dtype)
        self.norm = RMSNorm(P, eps=config.norm_eps)

    def __call__(self, tokens: Int32[Array, " T"], x: Float[Array, "T D"]) -> Float[Array, "T L P"]:
        shape = (x.shape[0], self.num_layers, self.inputs.size)
        known = jnp.where(tokens < self.inputs.table_rows, tokens, 0)
        scale = jnp.asarray(self.inputs.size**0.5, x.dtype)
        found = (self.table[...][known] * scale).reshape(shape)
        projected = (self.projection(x) * jnp.asarray(x.shape[1] ** -0.5, x.dtype)).reshape(shape)
        return (self.norm(projected) + found) * jnp.asarray(0.5**0.5, x.dtype)


class InputGate(nnx.Module):
    """What a layer makes of its input."""

    def __init__(self, config: ModelConfig, inputs: LayerInputs, dtype: DTypeLike):
        D, P = config.hidden_size, inputs.size
        self.activation = ACTIVATIONS[config.activation]
        self.gate, self.project = small_linear(D, P, dtype), small_linear(P, D, dtype)
        self.norm = RMSNorm(D, eps=config.norm_eps)

    def __call__(self, x: Float[Array, "T D"], given: Float[Array, "T P"]) -> Float[Array, "T D"]:
        return self.norm(self.project(self.activation(self.gate(x)) * given))
