"""A mixture of experts in the place of an MLP: a router, E experts, and perhaps one for all.

    x ─┬─ router ─ route ─ experts (E / shards on each device) ─ sum over devices ─┬─ + ─>
       └─ shared MLP ─ sigmoid gate ───────────────────────────────────────────────┘

Owns the parameters and how they are divided: a device has whole experts, and does nothing for
tokens that go elsewhere. Choice and products are `pallas_kernels.moe`'s.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int32

from models.config.decoder import Mixture, ModelConfig
from models.layers.attention import AttentionBatch
from models.layers.mlp import make_mlp
from models.layers.parts import Linear, RMSNorm
from models.sharding import TENSOR, on_each_device
from pallas_kernels import experts, route
from pallas_kernels.moe import num_parts, sparse_mixer


class MixtureOfExperts(nnx.Module):
    """sum over the k chosen experts of weight * down(act(gate(x), up(x))), + the shared MLP.

    Of an activation without a gate `gate_up` is up alone. With `mixture.latent_size` x is projected
    to that many numbers M for the experts, and their sum back to D.
    """

    def __init__(self, config: ModelConfig, mixture: Mixture, dtype: DTypeLike, shards: int):
        D, E, F = config.hidden_size, mixture.num_experts, mixture.intermediate_size
        M, C = mixture.latent_size or D, num_parts(mixture.activation) * F
        self.mixture = mixture
        self.router = Linear(D, E, axes=("embed", "choice"), bias=mixture.bias, dtype=dtype)
        self.choice_bias = _vector(E) if mixture.choice_bias else None
        beside = mixture.beside_mlp
        self.router_norm = RMSNorm(D, eps=config.norm_eps) if beside else None
        self.choice_scale = _vector(E) if beside else None
        self.gate_up: Any = _experts((E, M, C), dtype)
        self.down: Any = _experts((E, F, M), dtype)
        self.gate_up_bias = _experts((E, C), dtype) if mixture.bias else None
        self.down_bias = _experts((E, M), dtype) if mixture.bias else None
        gate = partial(Linear, D, 1, axes=("embed", "choice"), bias=False, dtype=dtype)
        size = mixture.shared_size
        self.shared = make_mlp(config, size, dtype, shards) if size else None
        self.shared_gate = gate() if mixture.shared_gate else None
        squeeze = partial(Linear, D, M, axes=("embed", "latent"), bias=False, dtype=dtype)
        expand = partial(Linear, M, D, axes=("latent", "embed"), bias=False, dtype=dtype)
        self.squeeze = squeeze() if mixture.latent_size else None
        self.expand = expand() if mixture.latent_size else None

    def __call__(
        self,
        x: Float[Array, "T D"],
        batch: AttentionBatch,
        asked: Float[Array, "T D"] | None = None,
    ) -> tuple[Float[Array, "T D"], Int32[Array, "T k"]]:
        """What is added, and the experts; of x, or `asked` in its place, the router chooses."""
        weights, routed = self._route(x if asked is None else asked)  # [T, k], [T, k]
        chosen = routed
        given = x if self.squeeze is None else self.squeeze(x)  # [T, M]
        if self.mixture.weigh_inputs:  # as many tokens as there are choices, of one expert each
            scaled = (given[:, None] * weights[..., None]).astype(x.dtype)
            given = scaled.reshape(-1, given.shape[1])
            chosen = chosen.reshape(-1, 1)
            weights = jnp.ones(chosen.shape, weights.dtype)
        here = partial(_experts_here, activation=self.mixture.activation, batch=batch)
        whole, divided = PartitionSpec(), PartitionSpec(TENSOR)
        specs = (whole, whole, whole, divided, divided, divided, divided)
        multiply = on_each_device(here, batch.mesh, specs, whole)
        out = multiply(
            given, weights, chosen, _weight(self.gate_up), _weight(self.down),
            _array(self.gate_up_bias), _array(self.down_bias),
        )  # fmt: skip
        if self.mixture.weigh_inputs:
            out = out.reshape(x.shape[0], -1, out.shape[1]).sum(1)
        out = out if self.expand is None else self.expand(out)
        if self.shared is None:
            return out, routed
        shared = self.shared(x)
        if self.shared_gate is not None:
            shared = shared * jax.nn.sigmoid(self.shared_gate(x))
        return (out + shared) * 0.5 if self.mixture.shared_mean else out + shared, routed

    def _route(self, x: Float[Array, "T D"]) -> tuple[Float32[Array, "T k"], Int32[Array, "T k"]]:
        mixture, bias = self.mixture, self.router.bias
        if self.router_norm is not None:
            x = self.router_norm(x) * jnp.asarray(x.shape[1] ** -0.5, x.dtype)
        logits = jnp.dot(x, self.router.kernel[...], preferred_element_type=jnp.float32)
        if bias is not None:
            logits = logits + bias[...]
        if mixture.rivals is not None:
            return sparse_mixer(logits, mixture.per_token, mixture.rivals)
        weights, chosen = route(
            logits,
            mixture.per_token,
            score=mixture.score,
            renormalize=mixture.renormalize,
            bias=_array(self.choice_bias),
            groups=mixture.groups,
            kept_groups=mixture.kept_groups,
            best_in_group=mixture.best_in_group,
            scale=mixture.scale,
        )
        if self.choice_scale is not None:
            weights = weights * self.choice_scale[...][chosen]
        return weights, chosen


class ExpertsBeside(nnx.Module):
    """What a mixture adds to a layer's MLP: experts between norms of their own, of the same x."""

    def __init__(self, config: ModelConfig, mixture: Mixture, dtype: DTypeLike, shards: int):
        D, eps = config.hidden_size, config.norm_eps
        self.norm, self.post_norm = RMSNorm(D, eps=eps), RMSNorm(D, eps=eps)
        self.experts = MixtureOfExperts(config, mixture, dtype, shards)

    def __call__(
        self, x: Float[Array, "T D"], batch: AttentionBatch
    ) -> tuple[Float[Array, "T D"], Int32[Array, "T k"]]:
        out, routed = self.experts(self.norm(x), batch, x)
        return self.post_norm(out), routed


def _experts_here(
    x: Array,
    weights: Array,
    chosen: Array,
    gate_up: Any,
    down: Any,
    gate_up_bias: Array | None,
    down_bias: Array | None,
    *,
    activation: str,
    batch: AttentionBatch,
) -> Array:
    """What this device's experts add, summed over devices. They are those that follow each other
    from its number on."""
    if batch.mesh is not None:
        chosen = chosen - lax.axis_index(TENSOR) * jax.tree.leaves(down)[0].shape[0]
    out = experts(
        x, weights, chosen, gate_up, down, activation=activation,
        gate_up_bias=gate_up_bias, down_bias=down_bias, backend=batch.backend,
    )  # fmt: skip
    return out if batch.mesh is None or batch.mesh.size == 1 else lax.psum(out, TENSOR)


def _weight(parameter: Any) -> Any:
    """An array, or what `experts` takes in its place: `quantised/experts.py`."""
    return parameter[...] if isinstance(parameter, nnx.Param) else parameter.container()


def _experts(shape: tuple[int, ...], dtype: DTypeLike) -> nnx.Param[Array]:
    return nnx.Param(jnp.zeros(shape, dtype), axes=("expert", *(None,) * (len(shape) - 1)))


def _vector(size: int) -> nnx.Param[Array]:
    return nnx.Param(jnp.zeros(size, jnp.float32), axes=("choice",))


def _array(parameter: nnx.Param[Array] | None) -> Array | None:
    return None if parameter is None else parameter[...]
