"""What a layer does to each token by itself: an MLP, gated or not.

Owns the order of a fused kernel's columns. Knows nothing of norms, residuals and attention.
"""

from statistics import NormalDist

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from models.config.decoder import ModelConfig
from models.layers.parts import ACTIVATIONS, Linear, split_columns

_XIELU_SLOPE, _XIELU_EPS = 0.5, -1e-6  # of every model that has it


class GatedMLP(nnx.Module):
    """down(act(gate(x)) * up(x)), F wide in between. Source: arXiv 2002.05202."""

    def __init__(
        self, config: ModelConfig, F: int, dtype: DTypeLike, shards: int, sparsity: float = 0.0
    ):
        D, bias = config.hidden_size, config.mlp_bias
        self.widths, self.shards, self.scales = (F, F), shards, config.mlp_scales
        self.sparsity = sparsity
        self.activation = ACTIVATIONS[config.activation]
        self.gate_up = Linear(D, 2 * F, axes=("embed", "mlp"), bias=bias, dtype=dtype)
        self.down = Linear(F, D, axes=("mlp", "embed"), bias=bias, dtype=dtype)

    def __call__(
        self, x: Float[Array, "T D"], added: Float[Array, "T columns"] | None = None
    ) -> Float[Array, "T D"]:
        """`added` to gate and up, as their product has them."""
        gate_up = self.gate_up(x) if added is None else self.gate_up(x) + added
        gate, up = split_columns(gate_up, self.shards, *self.widths)  # [T, F], [T, F]
        inner, outer = self.scales
        gate = gate if inner == 1.0 else gate * jnp.asarray(inner, x.dtype)
        gate = sparse(gate, self.sparsity) if self.sparsity else gate
        y = self.down(self.activation(gate) * up)
        return y if outer == 1.0 else y * jnp.asarray(outer, x.dtype)


def sparse(x: Float[Array, "T F"], share: float) -> Float[Array, "T F"]:
    """What is left of x above the quantile `share` of its normal distribution, else 0.

    Source: Spark Transformer, arXiv 2506.06644, as in Gemma 3n.
    """
    wide = x.astype(jnp.float32)
    cut = wide.mean(-1, keepdims=True)
    cut += wide.std(-1, keepdims=True) * NormalDist().inv_cdf(share)
    return jax.nn.relu(wide - cut).astype(x.dtype)


class MLP(nnx.Module):
    """down(act(up(x)))."""

    def __init__(self, config: ModelConfig, F: int, dtype: DTypeLike):
        D, bias = config.hidden_size, config.mlp_bias
        learned = config.activation == "xielu"
        self.activation = XIELU() if learned else ACTIVATIONS[config.activation]
        self.up = Linear(D, F, axes=("embed", "mlp"), bias=bias, dtype=dtype)
        self.down = Linear(F, D, axes=("mlp", "embed"), bias=bias, dtype=dtype)

    def __call__(self, x: Float[Array, "T D"]) -> Float[Array, "T D"]:
        return self.down(self.activation(self.up(x)))


def make_mlp(
    config: ModelConfig, F: int, dtype: DTypeLike, shards: int, sparsity: float = 0.0
) -> GatedMLP | MLP:
    """The one that `config` describes, F wide."""
    if config.gated_mlp:
        return GatedMLP(config, F, dtype, shards, sparsity)
    return MLP(config, F, dtype)


class XIELU(nnx.Module):
    """A parabola for x > 0 and a bent exponential below, both with a curvature that is learned.

    Source: arXiv 2411.13010.
    """

    def __init__(self) -> None:
        self.alpha_p = nnx.Param(jnp.zeros(1, jnp.float32), axes=("norm",))
        self.alpha_n = nnx.Param(jnp.zeros(1, jnp.float32), axes=("norm",))

    def __call__(self, x: Float[Array, "T F"]) -> Float[Array, "T F"]:
        wide = x.astype(jnp.float32)
        above = jax.nn.softplus(self.alpha_p[...]) * wide * wide
        bent = jnp.expm1(jnp.minimum(wide, _XIELU_EPS)) - wide
        below = (_XIELU_SLOPE + jax.nn.softplus(self.alpha_n[...])) * bent
        return (jnp.where(wide > 0, above, below) + _XIELU_SLOPE * wide).astype(x.dtype)
