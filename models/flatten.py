"""The model as a flat tuple of few arrays, which is how it enters a jitted step.

    layers.0.attention_norm.weight [D] ┐
    layers.1.attention_norm.weight [D] ┴─> layers.*.attention_norm.weight [L, D]     one leaf
    layers.0.qkv.kernel [D, (N+2K)H]   ──> itself                                    one leaf

Each leaf costs the host time in every step, so vectors that differ in their layer only are
stacked; matrices never are, for taking a layer out of a stack would copy it. Owns this layout.
Refuses to know what the parameters mean.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

Module = TypeVar("Module", bound=nnx.Module)
Axes = tuple[str | None, ...]


@dataclass(frozen=True)
class Leaf:
    """One array at the boundary: a parameter, or equal vectors of several layers stacked."""

    paths: tuple[str, ...]  # ("layers.0.norm.weight", "layers.1.norm.weight")
    shape: tuple[int, ...]  # of the leaf: [L, n] if stacked
    dtype: jnp.dtype
    axes: Axes  # logical names, of the leaf

    @property
    def stacked(self) -> bool:
        return len(self.paths) > 1


@dataclass(frozen=True)
class Layout(Generic[Module]):
    """How a module's parameters become leaves and back. Closed over by a jitted function."""

    leaves: tuple[Leaf, ...]
    graph: nnx.GraphDef[Module]
    state: Any  # nnx.State, abstract: shapes and metadata of every parameter

    @cached_property
    def place(self) -> dict[str, tuple[int, int]]:
        """Path -> which leaf, and which row of it."""
        return {
            path: (number, row)
            for number, leaf in enumerate(self.leaves)
            for row, path in enumerate(leaf.paths)
        }

    def flatten(self, module: Module) -> tuple[Array, ...]:
        """The leaves of a module that has this layout."""
        arrays = {path: variable.get_value() for path, variable in _parameters(module)}
        return tuple(
            jnp.stack([arrays[path] for path in leaf.paths])
            if leaf.stacked
            else arrays[leaf.paths[0]]
            for leaf in self.leaves
        )

    def unflatten(self, leaves: Sequence[Array]) -> Module:
        """The module with these leaves; cheap inside a jit, where it is traced away."""

        def array(path: tuple[object, ...], variable: nnx.Variable[Array]) -> nnx.Variable[Array]:
            number, row = self.place[dotted(path)]
            leaf = leaves[number]
            return variable.replace(leaf[row] if self.leaves[number].stacked else leaf)

        return nnx.merge(self.graph, nnx.map_state(array, self.state))


def layout(module: Module) -> Layout[Module]:
    """The layout of `module`, which may be abstract (made under `nnx.eval_shape`)."""
    groups: dict[object, list[tuple[str, nnx.Variable[Array]]]] = {}
    for path, variable in _parameters(module):
        value = variable.get_value()
        alike = re.sub(r"\.\d+\.", ".*.", path) if value.ndim == 1 else path
        key = (alike, value.shape, value.dtype, variable.axes)
        groups.setdefault(key, []).append((path, variable))
    graph, state = nnx.split(module)
    abstract = jax.eval_shape(lambda: state)
    return Layout(tuple(_leaf(group) for group in groups.values()), graph, abstract)


def _leaf(group: Sequence[tuple[str, nnx.Variable[Array]]]) -> Leaf:
    paths = tuple(path for path, _ in group)
    variable = group[0][1]
    value = variable.get_value()
    layers, name = ((len(paths),), (None,)) if len(paths) > 1 else ((), ())
    return Leaf(paths, layers + value.shape, value.dtype, name + tuple(variable.axes))


def _parameters(module: nnx.Module) -> Iterator[tuple[str, nnx.Variable[Array]]]:
    for path, variable in nnx.to_flat_state(nnx.state(module, nnx.Param)):
        yield dotted(path), variable


def dotted(path: Sequence[object]) -> str:
    """("layers", 0, "mlp", "down") -> "layers.0.mlp.down"."""
    return ".".join(map(str, path))
