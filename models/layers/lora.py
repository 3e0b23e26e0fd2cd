"""A model with room for adapters beside its matrices: several at a time, chosen token by token.

    y = x W + b + x A[s] B[s]        s: the slot of the token's adapter; a token may have none

Owns where in a decoder there is such room, and which models have none. The arithmetic is
`low_rank.py`'s, how files are laid into a slot `checkpoints/adapter_files.py`'s; who has which slot
is not known here.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike
from jaxtyping import Array

from models.checkpoints.loading import LoadedModel
from models.checkpoints.memory import check_memory
from models.config.decoder import ModelConfig
from models.decoder import Decoder
from models.errors import UnsupportedError
from models.flatten import Layout, Leaf, layout
from models.layers.low_rank import LowRank
from models.layers.parts import Linear
from models.sharding import named_sharding
from models.weights.sources import Source, Stack

_ADAPTED = re.compile(r"layers\.\d+\.(attention|mlp)\.(qkv|qk|q|o|gate|gate_up|up|down)")


@dataclass(frozen=True)
class Target:
    """A matrix that adapters may change, and which of the model's leaves hold theirs."""

    path: str  # "layers.3.attention.qkv"
    source: Source  # of the matrix, in a checkpoint
    shape: tuple[int, int]  # of the matrix: in, out
    a: int  # the leaf's number
    b: int

    @property
    def tensors(self) -> tuple[str, ...]:
        """Those of the checkpoint of which it is made."""
        return tensors_of(self.source)


@dataclass(frozen=True)
class AdaptedModel:
    """A model with room for adapters, of which there are none yet."""

    model: LoadedModel
    targets: tuple[Target, ...]
    slots: int
    rank: int  # the largest of an adapter

    @property
    def numbers(self) -> tuple[int, ...]:
        """The leaves that hold adapters: A and B of one target after the other."""
        return tuple(number for target in self.targets for number in (target.a, target.b))


def with_adapters(model: LoadedModel, slots: int, rank: int) -> AdaptedModel:
    """`model` with room for so many adapters on the devices, each of this rank or less.

    Raises:
        UnsupportedError: the model has layers that adapters have no place in.
        ModelError: the room does not fit into the devices' free memory.
    """
    check_family(model.config)
    dtype = jnp.dtype(model.dtype)
    plan, targets = adapted_layout(model.layout, model.weights.sources, slots, rank, dtype)
    known = dict(zip((leaf.paths for leaf in model.layout.leaves), model.leaves, strict=True))
    check_memory([leaf for leaf in plan.leaves if leaf.paths not in known], model.mesh)
    leaves = tuple(
        known[leaf.paths] if leaf.paths in known else zeros(leaf, model.mesh)
        for leaf in plan.leaves
    )
    return AdaptedModel(replace(model, layout=plan, leaves=leaves), targets, slots, rank)


def adapted_layout(
    plan: Layout[Decoder],
    sources: Mapping[str, Source | Stack],
    slots: int,
    rank: int,
    dtype: DTypeLike,
) -> tuple[Layout[Decoder], tuple[Target, ...]]:
    """The layout of the same decoder with room for adapters, and where it is."""
    decoder = nnx.merge(plan.graph, plan.state)
    found: dict[str, tuple[Source, tuple[int, int]]] = {}
    for path, linear in _adapted(decoder):
        source, shape = sources[f"{path}.kernel"], linear.kernel.shape
        if not isinstance(source, Source):
            raise TypeError(f"{path} is a stack of matrices")
        width = rank * len(tensors_of(source))
        axes = linear.kernel.axes
        make = partial(LowRank, shape, axes, slots=slots, width=width, dtype=dtype)
        linear.adapters = nnx.data(nnx.eval_shape(make))
        found[path] = source, shape
    adapted = layout(decoder)
    place = adapted.place
    return adapted, tuple(
        Target(path, source, shape, place[f"{path}.adapters.a"][0], place[f"{path}.adapters.b"][0])
        for path, (source, shape) in found.items()
    )


def tensors_of(source: Source) -> tuple[str, ...]:
    """The checkpoint's matrices of which one is made, each of which may have an A and a B."""
    return tuple(dict.fromkeys(part.tensor for part in source.parts if part.tensor))


def check_family(config: ModelConfig) -> None:
    """Raise UnsupportedError for a model with layers that adapters have no place in."""
    kinds = {
        "experts": config.mixture, "latent attention": config.latent, "a state": config.mixer,
        "an encoder": config.encoder, "blocks in common": config.blocks,
    }  # fmt: skip
    for name, has in kinds.items():
        if has is not None:
            raise UnsupportedError(
                f"--enable-lora is for decoders whose layers are attention and an MLP, and a "
                f"{config.architecture} has {name}; leave it out."
            )


def _adapted(decoder: Decoder) -> Iterator[tuple[str, Linear]]:
    for parts, module in nnx.iter_modules(decoder):
        path = ".".join(map(str, parts))
        if isinstance(module, Linear) and _ADAPTED.fullmatch(path):
            yield path, module


def zeros(leaf: Leaf, mesh: Mesh) -> Array:
    """The room of one leaf, before an adapter lies in it."""
    made: Array = _zeros(leaf.shape, leaf.dtype, named_sharding(mesh, leaf.axes))
    return made


@partial(jax.jit, static_argnums=(0, 1, 2))
def _zeros(shape: tuple[int, ...], dtype: np.dtype, sharding: NamedSharding) -> Array:
    placed: Array = jax.lax.with_sharding_constraint(jnp.zeros(shape, dtype), sharding)
    return placed
