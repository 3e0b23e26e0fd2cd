"""Several streams of hidden states of which each layer computes one, and inputs of every layer.

    x [T, D] ─ spread ─> streams [S, T, D] ─ predict ─ layer of one of them ─ correct ─> streams ...
    token ─ table ─ + projection of x ─> [T, L, P], one a layer ─ gate ─────────┘
                                                  streams ─ gather, their mean ─> x [T, D]

Owns what is around attention and MLP in Gemma 3n. Knows nothing of either.
Source: AltUp, arXiv 2301.13310; LAuReL, arXiv 2411.07501; Gemma 3n's published model code.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int32

from models.config import AltUp, ModelConfig
from models.layers import ACTIVATIONS, Linear, RMSNorm

_SMALLEST = 1e-5  # mean square of a stream


def _small(inputs: int, outputs: int, dtype: DTypeLike) -> Linear:
    """A product that every device does whole, and that stays as precise as it is."""
    return Linear(inputs, outputs, axes=("embed", "choice"), bias=False, dtype=dtype)


class Streams(nnx.Module):
    """From one hidden state to S and back, and the inputs of all layers."""

    def __init__(self, config: ModelConfig, altup: AltUp, dtype: DTypeLike, shards: int):
        D, P, L = config.hidden_size, altup.layer_inputs, config.num_layers
        rows = -(-altup.table_rows // shards) * shards
        self.altup, self.num_layers = altup, L
        self.table = nnx.Param(jnp.zeros((rows, L * P), dtype), axes=("vocab", "embed"))
        self.projection = _small(D, L * P, dtype)
        self.norm = RMSNorm(P, eps=config.norm_eps)
        self.spread, self.gather = (
            nnx.List(_small(D, D, dtype) for _ in range(altup.streams - 1)) for _ in range(2)
        )

    def inputs(self, tokens: Int32[Array, " T"], x: Float[Array, "T D"]) -> Float[Array, "T L P"]:
        """What each layer is given besides its streams."""
        shape = (x.shape[0], self.num_layers, self.altup.layer_inputs)
        known = jnp.where(tokens < self.altup.table_rows, tokens, 0)
        scale = jnp.asarray(self.altup.layer_inputs**0.5, x.dtype)
        found = (self.table[...][known] * scale).reshape(shape)
        projected = (self.projection(x) * jnp.asarray(x.shape[1] ** -0.5, x.dtype)).reshape(shape)
        return (self.norm(projected) + found) * jnp.asarray(0.5**0.5, x.dtype)

    def open(self, x: Float[Array, "T D"]) -> Float[Array, "S T D"]:
        """The streams that the first layer reads, all as long as the first."""
        return jnp.stack([x, *(_as_long(x, project(x)) for project in self.spread)])

    def close(self, x: Float[Array, "S T D"]) -> Float[Array, "T D"]:
        """The mean of all streams, as long as the first."""
        others = zip(self.gather, x[1:], strict=True)
        return jnp.stack([x[0], *(_as_long(x[0], project(one)) for project, one in others)]).mean(0)


def _as_long(like: Float[Array, "T D"], x: Float[Array, "T D"]) -> Float[Array, "T D"]:
    wanted, found = (
        jnp.mean(jnp.square(one.astype(jnp.float32)), -1, keepdims=True) for one in (like, x)
    )
    return (x * jnp.sqrt(wanted) / jnp.sqrt(jnp.maximum(found, _SMALLEST))).astype(x.dtype)


class Alternation(nnx.Module):
    """What a layer does to the streams before and behind its own computation."""

    def __init__(self, config: ModelConfig, altup: AltUp, dtype: DTypeLike):
        D, S, P, eps = config.hidden_size, altup.streams, altup.layer_inputs, config.norm_eps
        self.altup, self.activation = altup, ACTIVATIONS[config.activation]
        self.router, self.router_norm = _small(D, S, dtype), RMSNorm(D, eps=eps)
        self.prediction, self.correction = _small(S, S * S, dtype), _small(S, S, dtype)
        self.scale = nnx.Param(jnp.zeros(D, jnp.float32), axes=("norm",)) if altup.scaled else None
        self.gate, self.project = _small(D, P, dtype), _small(P, D, dtype)
        self.norm = RMSNorm(D, eps=eps)

    def predict(self, x: Float[Array, "S T D"]) -> Float[Array, "S T D"]:
        """Streams as a mixture of streams."""
        S, T, _ = x.shape
        mixing = self.prediction(self._route(x[self.altup.active])).reshape(T, S, S)
        return x + jnp.einsum("itd,tji->jtd", x, mixing)

    def correct(
        self,
        predicted: Float[Array, "S T D"],
        computed: Float[Array, "T D"],
        given: Float[Array, "T P"],
    ) -> Float[Array, "S T D"]:
        """Streams moved towards what was computed of one; and the layer's input in the others."""
        active = self.altup.active
        moved = self.correction(self._route(computed)) + 1  # [T, S]
        x = predicted + (computed - predicted[active]) * moved.T[..., None]
        first = x[active]
        first = first if self.scale is None else (first * self.scale[...]).astype(first.dtype)
        added = self.norm(self.project(self.activation(self.gate(first)) * given))
        return x.at[1:].add(added)

    def _route(self, x: Float[Array, "T D"]) -> Float[Array, "T S"]:
        routed = self.router(self.router_norm(x) / x.shape[1])
        return jnp.tanh(routed.astype(jnp.float32)).astype(x.dtype)


class Laurel(nnx.Module):
    """x + norm(right(left(x))), of a low rank."""

    def __init__(self, config: ModelConfig, rank: int, dtype: DTypeLike):
        D = config.hidden_size
        self.left, self.right = _small(D, rank, dtype), _small(rank, D, dtype)
        self.norm = RMSNorm(D, eps=config.norm_eps)

    def __call__(self, x: Float[Array, "T D"]) -> Float[Array, "T D"]:
        return x + self.norm(self.right(self.left(x)))
