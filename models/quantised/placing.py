"""Packed kernels from a checkpoint to the devices.

    for each kernel, for each device:  some columns ─> numbers, scales ─> parts ─┐
                                       the next     ─> ...             ─> parts ─┴─> device

Owns that no matrix is whole in memory before it is packed. Knows no format of a checkpoint.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array
from numpy.typing import DTypeLike

from models.checkpoints.slices import Index, fill
from models.flatten import Leaf
from models.quantised.kernels import Packed, Parts, Quantised
from models.quantised.tensors import QuantisedTensor, Readable
from models.sharding import MESH_AXES, named_sharding
from models.weights.sources import Source, Stack

Range = tuple[int, int]

_BLOCK_NUMBERS = 32 * 1024 * 1024  # read and encoded at once


@dataclass
class PackedPlacer:
    """Reads, packs and places the leaves that the parts of packed kernels are."""

    kernels: Mapping[str, Packed]  # by path
    sources: Mapping[str, Source | Stack]
    tensors: Mapping[str, Readable]
    mesh: Mesh
    # by path of a part and device: vectors, until those of all layers are there to be stacked
    _vectors: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)

    def place(self, leaves: Sequence[Leaf], pool: Executor) -> dict[Leaf, Array]:
        """The arrays of all leaves that are parts of packed kernels."""
        leaf_of = {path: leaf for leaf in leaves for path in leaf.paths}
        placed: dict[Leaf, Array] = {}
        for found in pool.map(lambda path: self._place_kernel(path, leaf_of), self.kernels):
            placed |= found
        stacks = {leaf_of[path] for path, _ in self._vectors}
        return placed | {leaf: self._place_stack(leaf) for leaf in stacks}

    def _place_kernel(self, path: str, leaf_of: Mapping[str, Leaf]) -> dict[Leaf, Array]:
        encoded: dict[int, Parts] = {}

        def part(name: str) -> Callable[[int], np.ndarray]:
            def of_shard(shard: int) -> np.ndarray:
                if shard not in encoded:
                    encoded[shard] = self._encode(path, shard)
                return encoded[shard][name]

            return of_shard

        placed = {}
        for name in self.kernels[path].parts:
            leaf = leaf_of[f"{path}.{name}"]
            if not leaf.stacked:
                placed[leaf] = self._array(leaf, part(name))
        for shard, parts in encoded.items():
            for name, values in parts.items():
                if leaf_of[f"{path}.{name}"].stacked:
                    self._vectors[f"{path}.{name}", shard] = values
        return placed

    def _place_stack(self, leaf: Leaf) -> Array:
        return self._array(
            leaf, lambda n: np.stack([self._vectors[path, n] for path in leaf.paths])
        )

    def _array(self, leaf: Leaf, of_shard: Callable[[int], np.ndarray]) -> Array:
        """The leaf, of which every device holds what `of_shard` returns for its number."""

        def read(index: Index | None) -> np.ndarray:
            axes = zip(index or (), leaf.shape, leaf.axes, strict=True)
            starts = [
                (part.start or 0) * self.mesh.size // size
                for part, size, axis in axes
                if MESH_AXES[axis] is not None
            ]
            return of_shard(max(starts, default=0))

        return jax.make_array_from_callback(leaf.shape, named_sharding(self.mesh, leaf.axes), read)

    def _encode(self, path: str, shard: int) -> Parts:
        """The parts of a kernel that the device of this number has."""
        kernel, source = self.kernels[path], self.sources[path]
        *experts, inputs, outputs = kernel.bounds(shard)
        if isinstance(source, Source):
            return self._encode_matrix(kernel, source, inputs, outputs)
        matrices = [
            self._encode_matrix(kernel, one, inputs, outputs)
            for one in source.sources[slice(*experts[0])]
        ]
        return {name: np.stack([parts[name] for parts in matrices]) for name in kernel.parts}

    def _encode_matrix(
        self, kernel: Packed, source: Source, inputs: Range, columns: Range
    ) -> Parts:
        low, high = columns
        step = max(1, _BLOCK_NUMBERS // (inputs[1] - inputs[0]))
        blocks = []
        for start in range(low, high, step):
            outputs = (start, min(start + step, high))
            blocks.append(kernel.encode(self._columns(kernel, source, inputs, outputs)))
        if len(blocks) == 1:
            return blocks[0]  # as it is: concatenate would copy it
        return {
            name: np.concatenate([block[name] for block in blocks], axis)
            for name, axis in kernel.parts.items()
        }

    def _columns(self, kernel: Packed, source: Source, inputs: Range, outputs: Range) -> Quantised:
        """Some columns as the checkpoint has them, or quantised now if it has them plainly."""
        tensors = {name: self.tensors[name] for name in source.tensors}
        quantised = {n: t for n, t in tensors.items() if isinstance(t, QuantisedTensor)}
        if not quantised:
            return kernel.quantise(self._matrix(source, tensors, inputs, outputs, np.float32))
        one = next(iter(quantised.values()))
        source = replace(source, transpose=not one.turned)
        groups = (inputs[0] // one.group, -(-inputs[1] // one.group))
        numbers = self._matrix(
            source, {n: t.numbers for n, t in quantised.items()}, inputs, outputs, one.numbers.dtype
        )
        scale = self._matrix(
            source, {n: t.scale for n, t in quantised.items()}, groups, outputs, np.float32
        )
        zeros = {n: t.zeros for n, t in quantised.items() if t.zeros is not None}
        if not zeros:
            return Quantised(numbers, scale)
        return Quantised(numbers, scale, self._matrix(source, zeros, groups, outputs, np.float32))

    def _matrix(
        self,
        source: Source,
        tensors: Mapping[str, Readable],
        inputs: Range,
        outputs: Range,
        dtype: DTypeLike,
    ) -> np.ndarray:
        """[C, A] of tensors that lie as the source says."""
        out = np.zeros((outputs[1] - outputs[0], inputs[1] - inputs[0]), dtype)
        fill(out.T, source, tensors, [inputs, outputs], self.mesh.size)
        return out
