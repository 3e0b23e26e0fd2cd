"""What several mixers have in common: projections, the short convolution, the norm with a gate.

Every device has all of their parameters. Knows no mixer.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int32

from models.layers.attention import AttentionBatch
from models.layers.parts import Linear
from models.layers.states import StateRows, States, short_conv
from pallas_kernels.materialised import materialised

inwards = partial(Linear, axes=("embed", "latent"))  # D to what a mixer computes with
outwards = partial(Linear, axes=("latent", "embed"))


def vector(*shape: int) -> nnx.Param[Array]:
    """Numbers that are computed with in float32."""
    return nnx.Param(jnp.zeros(shape, jnp.float32), axes=(None,) * len(shape))


def rows_of(batch: AttentionBatch) -> StateRows:
    """The slots of the step's rows."""
    if batch.states is None:
        raise TypeError("a layer with a state needs a batch with slots")
    return replace(batch.states, single=batch.blocks is None)


class ShortConv(nnx.Module):
    """Each channel's weighted sum of the last W inputs of the row."""

    def __init__(self, channels: int, width: int, bias: bool, dtype: DTypeLike):
        self.kernel = nnx.Param(jnp.zeros((width, channels), dtype), axes=(None, None))
        self.bias = nnx.Param(jnp.zeros(channels, dtype), axes=(None,)) if bias else None

    def __call__(
        self,
        index: Int32[Array, ""],
        x: Float[Array, "T C"],
        batch: AttentionBatch,
        states: States,
    ) -> tuple[Float[Array, "T C"], States]:
        kernel = self.kernel[...]
        y, states = short_conv(rows_of(batch), states, index, x, kernel, batch.mesh)
        return y if self.bias is None else y + self.bias[...], states


class GatedNorm(nnx.Module):
    """rms_norm(x * silu(gate)) * w, or rms_norm(x) * w * silu(gate), over each group's part of the
    last axis, in float32. With one weight for a group where `shared`; `act` stands for silu."""

    def __init__(
        self, size: int, *, groups: int, gate_first: bool, shared: bool, eps: float,
        act: Callable[[Array], Array] = jax.nn.silu,
    ):  # fmt: skip
        self.weight = vector(size // groups if shared else size)
        self.groups, self.gate_first, self.eps, self.act = groups, gate_first, eps, act

    def __call__(
        self, x: Float[Array, "T size"], gate: Float[Array, "T size"]
    ) -> Float[Array, "T size"]:
        wide, factor = x.astype(jnp.float32), self.act(gate.astype(jnp.float32))
        if self.gate_first:
            wide = materialised(wide * factor)
        grouped = wide.reshape(len(x), self.groups, -1)
        scale = jax.lax.rsqrt(jnp.mean(grouped * grouped, -1, keepdims=True) + self.eps)
        weight = self.weight[...].reshape(-1, grouped.shape[-1])
        y = (grouped * scale * weight).reshape(x.shape)
        return (y if self.gate_first else y * factor).astype(x.dtype)
