"""Several streams of hidden states of which each layer computes one.

    x [T, D] ─ spread ─> streams [S, T, D] ─ predict ─ layer of one of them ─ correct ─> streams ...
                                                  streams ─ gather, their mean ─> x [T, D]

Owns what is around attention and MLP in Gemma 3n. Knows nothing of either.
Source: AltUp, arXiv 2301.13310; LAuReL, arXiv 2411.07501; Gemma 3n's published model code.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from models.config.decoder import AltUp, ModelConfig
from models.layers.layer_inputs import InputGate
from models.layers.parts import RMSNorm, small_linear

_SMALLEST = 1e-5  # mean square of a stream


class Streams(nnx.Module):
    """From one hidden state to S and back."""

    def __init__(self, config: ModelConfig, altup: AltUp, dtype: DTypeLike):
        D = config.hidden_size
        self.spread, self.gather = (
            nnx.List(small_linear(D, D, dtype) for _ in range(altup.streams - 1)) for _ in range(2)
        )

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
        D, S, eps = config.hidden_size, altup.streams, config.norm_eps
        self.altup = altup
        self.router, self.router_norm = small_linear(D, S, dtype), RMSNorm(D, eps=eps)
        self.prediction = small_linear(S, S * S, dtype)
        self.correction = small_linear(S, S, dtype)
        self.scale = nnx.Param(jnp.zeros(D, jnp.float32), axes=("norm",)) if altup.scaled else None

    def predict(self, x: Float[Array, "S T D"]) -> Float[Array, "S T D"]:
        """Streams as a mixture of streams."""
        S, T, _ = x.shape
        mixing = self.prediction(self._route(x[self.altup.active])).reshape(T, S, S)
        return x + jnp.einsum("itd,tji->jtd", x, mixing)

    def correct(
        self,
        predicted: Float[Array, "S T D"],
        computed: Float[Array, "T D"],
        gate: InputGate,
        given: Float[Array, "T P"],
    ) -> Float[Array, "S T D"]:
        """Streams moved towards what was computed of one; and the layer's input in the others."""
        active = self.altup.active
        moved = self.correction(self._route(computed)) + 1  # [T, S]
        x = predicted + (computed - predicted[active]) * moved.T[..., None]
        first = x[active]
        first = first if self.scale is None else (first * self.scale[...]).astype(first.dtype)
        return x.at[1:].add(gate(first, given))

    def _route(self, x: Float[Array, "T D"]) -> Float[Array, "T S"]:
        routed = self.router(self.router_norm(x) / x.shape[1])
        return jnp.tanh(routed.astype(jnp.float32)).astype(x.dtype)


class Laurel(nnx.Module):
    """x + norm(right(left(x))), of a low rank."""

    def __init__(self, config: ModelConfig, rank: int, dtype: DTypeLike):
        D = config.hidden_size
        self.left, self.right = small_linear(D, rank, dtype), small_linear(rank, D, dtype)
        self.norm = RMSNorm(D, eps=config.norm_eps)

    def __call__(self, x: Float[Array, "T D"]) -> Float[Array, "T D"]:
        return x + self.norm(self.right(self.left(x)))
