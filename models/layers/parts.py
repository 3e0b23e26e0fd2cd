"""The small parts of a decoder: linear maps, norms, activations.

Owns parameters, the logical names of their axes (`nnx.Param(..., axes=...)`, which
`models/sharding.py` maps to a mesh) and their arithmetic. Knows nothing of heads, positions or
caches.

Kernels lie as [in, out]. Norms compute in float32 and have float32 parameters in every model.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from pallas_kernels import rms_norm

Activation = Callable[[Array], Array]

ACTIVATIONS: Mapping[str, Activation] = {
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_fast": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),  # source: Primer, arXiv 2109.08668
}


class Linear(nnx.Module):
    """x W + b, with W [in, out] and a bias where asked for.

    In the place of the matrix there may be a module that multiplies by it: `quantised/kernels.py`.
    """

    def __init__(
        self, inputs: int, outputs: int, *, axes: tuple[str, str], bias: bool, dtype: DTypeLike
    ):
        self.kernel: Any = nnx.Param(jnp.zeros((inputs, outputs), dtype), axes=axes)
        self.bias = nnx.Param(jnp.zeros(outputs, dtype), axes=axes[1:]) if bias else None
        self.adapters: Any = None  # a module whose product is added: `low_rank.py`

    def __call__(self, x: Float[Array, "*T inputs"]) -> Float[Array, "*T outputs"]:
        y = self.product(x)
        y = y if self.bias is None else y + self.bias[...]
        return y if self.adapters is None else y + self.adapters(x)

    def product(
        self, x: Float[Array, "*T inputs"], dtype: DTypeLike | None = None
    ) -> Float[Array, "*T outputs"]:
        """x W, in `dtype` or that of `x`."""
        if isinstance(self.kernel, nnx.Module):
            rows = self.kernel(x.reshape(-1, x.shape[-1]), dtype)
            return jnp.asarray(rows).reshape(*x.shape[:-1], -1)
        return jnp.dot(x, self.kernel[...], preferred_element_type=dtype)


def small_linear(inputs: int, outputs: int, dtype: DTypeLike) -> Linear:
    """A product that every device does whole, and that stays as precise as it is."""
    return Linear(inputs, outputs, axes=("embed", "choice"), bias=False, dtype=dtype)


class RMSNorm(nnx.Module):
    """x / rms(x) * w over the last axis; (1 + w) where `offset`. Source: arXiv 1910.07467."""

    def __init__(self, *shape: int, eps: float, offset: bool = False):
        self.weight = _norm_vector(shape)
        self.eps = eps
        self.offset = offset

    def __call__(self, x: Float[Array, "*T size"]) -> Float[Array, "*T size"]:
        weight = 1 + self.weight[...] if self.offset else self.weight[...]
        return rms_norm(x, weight, self.eps).astype(x.dtype)


class LayerNorm(nnx.Module):
    """(x - mean) / std * w + b over the last axis, with w and b where asked for; (1 + w) where
    `offset`. Source: arXiv 1607.06450."""

    def __init__(
        self, *shape: int, eps: float, offset: bool = False, weight: bool = True, bias: bool = True
    ):
        self.weight = _norm_vector(shape) if weight else None
        self.bias = _norm_vector(shape) if bias else None
        self.eps = eps
        self.offset = float(offset)

    def __call__(self, x: Float[Array, "*T size"]) -> Float[Array, "*T size"]:
        wide = x.astype(jnp.float32)
        centred = wide - jnp.mean(wide, -1, keepdims=True)
        scale = jax.lax.rsqrt(jnp.mean(centred * centred, -1, keepdims=True) + self.eps)
        y = centred * scale
        y = y if self.weight is None else y * (self.weight[...] + self.offset)
        y = y if self.bias is None else y + self.bias[...]
        return y.astype(x.dtype)


def _norm_vector(shape: tuple[int, ...]) -> nnx.Param[Array]:
    return nnx.Param(jnp.zeros(shape, jnp.float32), axes=("norm",) * len(shape))


def split_columns(
    x: Float[Array, "T columns"], shards: int, *widths: int
) -> tuple[Float[Array, "T _"], ...]:
    """Undo the fusing of a product whose columns are grouped by shard.

    widths = 4, 2    shards = 2:    a0 a1 b0 | a2 a3 b1   ->   a0 a1 a2 a3, b0 b1

    A column-sharded x stays where it lies.
    """
    T = x.shape[0]
    grouped = x.reshape(T, shards, -1)  # [T, shards, columns / shards]
    ends = [sum(widths[: i + 1]) // shards for i in range(len(widths) - 1)]
    return tuple(part.reshape(T, -1) for part in jnp.split(grouped, ends, axis=-1))


def join_columns(shards: int, *parts: Float[Array, "T _"]) -> Float[Array, "T columns"]:
    """Columns as `split_columns` found them."""
    T = parts[0].shape[0]
    grouped = [part.reshape(T, shards, -1) for part in parts]
    return jnp.concatenate(grouped, axis=-1).reshape(T, -1)


def identity(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Stands where a model has no norm, or no activation."""
    return x


def softcap(x: Float[Array, "*any"], cap: float | None) -> Float[Array, "*any"]:
    """Squeeze x into (-cap, cap); None leaves it. Source: Gemma 2, arXiv 2408.00118."""
    return x if cap is None else jnp.tanh(x / cap) * cap
