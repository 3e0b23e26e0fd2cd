"""Matrices of linear maps that stay in few bits on the devices, and are multiplied as they lie.

    int8   numbers int8 [C, A]    scale [C]    tokens become int8 too, a scale for each
    fp8    numbers e4m3 [C, A]    scale [C]    tokens become e4m3 too

A is inputs and C outputs. Where devices divide the inputs, each has scales of its own for its part
of them, so that none has to know what the others hold. Owns how the parts lie, are divided and
multiplied, and how they are made from numbers; products are `pallas_kernels.quantized`'s. Knows no
checkpoint, and no linear map by name.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from models.sharding import MESH_AXES, partition_spec
from pallas_kernels.quantized import fp8_matmul, int8_matmul
from pallas_kernels.quantized.scaled_matmul import E4M3_MAX

Axes = tuple[str, str]
Parts = dict[str, np.ndarray]


class Quantised(NamedTuple):
    """Columns of a matrix: w[a, c] = scale[c, g] (numbers[c, a] - zeros[c, g]), g = a // group."""

    numbers: np.ndarray  # [C, A]
    scale: np.ndarray  # float32 [C, groups]
    zeros: np.ndarray | None = None  # float32 [C, groups]


class PackedKernel(nnx.Module):
    """W [inputs, outputs] in few bits, in the place of a linear map's kernel."""

    parts: ClassVar[Mapping[str, int]]  # name -> axis of the columns
    deviation: ClassVar[float]  # of random numbers

    def __init__(self, shape: tuple[int, int], axes: Axes, mesh: Mesh):
        self.shape, self.axes, self.mesh = shape, axes, mesh

    def __call__(
        self, x: Float[Array, "T inputs"], dtype: DTypeLike | None = None
    ) -> Float[Array, "T outputs"]:
        """x W, in `dtype` or that of `x`; each device multiplies what it has."""
        inputs, outputs = (MESH_AXES[axis] for axis in self.axes)
        parameters = [getattr(self, name) for name in self.parts]

        def here(x: Array, *parts: Array) -> Array:
            y = self.multiply(x, *parts, dtype=dtype)
            return y if inputs is None or self.mesh.size == 1 else lax.psum(y, inputs)

        divided = jax.shard_map(
            here,
            mesh=self.mesh,
            in_specs=(PartitionSpec(None, inputs), *(partition_spec(p.axes) for p in parameters)),
            out_specs=PartitionSpec(None, outputs),
            check_vma=False,
        )
        return jnp.asarray(divided(x, *(parameter[...] for parameter in parameters)))

    @staticmethod
    @abstractmethod
    def multiply(x: Array, *parts: Array, dtype: DTypeLike | None) -> Array:
        """x W on one device."""

    @staticmethod
    @abstractmethod
    def encode(weights: Quantised) -> Parts:
        """The parts of some columns, as they lie on a device that has these inputs of them."""

    def bounds(self, shard: int) -> list[tuple[int, int]]:
        """Inputs and outputs that the device of this number has."""
        return [
            (0, size) if MESH_AXES[axis] is None else _share(size, shard, self.mesh.size)
            for size, axis in zip(self.shape, self.axes, strict=True)
        ]

    @property
    def random_constants(self) -> Mapping[str, float]:
        """Parts with which random bits are a matrix of deviation 1 / sqrt(inputs)."""
        return {"scale": float(self.shape[0] ** -0.5 / self.deviation)}


class _ByColumn(PackedKernel):
    """Eight bits, and a scale for each output and part of the inputs."""

    parts: ClassVar[Mapping[str, int]] = {"numbers": 0, "scale": 0}
    dtype: ClassVar[Any]
    largest: ClassVar[float]

    def __init__(self, shape: tuple[int, int], axes: Axes, mesh: Mesh):
        super().__init__(shape, axes, mesh)
        inputs_divided = MESH_AXES[axes[0]] is not None
        scales = shape[1] * (mesh.size if inputs_divided else 1)
        axis = axes[0] if inputs_divided else axes[1]
        self.numbers = nnx.Param(jnp.zeros(shape[::-1], self.dtype), axes=axes[::-1])
        # a vector, so that those of all layers are one leaf
        self.scale = nnx.Param(jnp.zeros(scales, jnp.float32), axes=(axis,))

    @staticmethod
    def encode(weights: Quantised) -> Parts:
        return {"numbers": weights.numbers, "scale": np.ascontiguousarray(weights.scale[:, 0])}

    @classmethod
    def quantise(cls, matrix: np.ndarray) -> Quantised:
        """The nearest to the columns of a float32 matrix [C, A], the largest of each exact."""
        scale = np.abs(matrix).max(axis=1, keepdims=True) / np.float32(cls.largest)
        numbers = matrix / np.where(scale > 0, scale, 1)
        return Quantised(cls._rounded(numbers), scale)

    @staticmethod
    @abstractmethod
    def _rounded(numbers: np.ndarray) -> np.ndarray: ...


class Int8Kernel(_ByColumn):
    """Whole numbers of 8 bits, times tokens in 8 bits."""

    dtype = jnp.int8
    largest = 127.0
    deviation = 73.9  # of -128 .. 127

    @staticmethod
    def multiply(x: Array, *parts: Array, dtype: DTypeLike | None) -> Array:
        return int8_matmul(x, *parts, dtype=dtype)

    @staticmethod
    def _rounded(numbers: np.ndarray) -> np.ndarray:
        return np.rint(numbers).astype(np.int8)


class Fp8Kernel(_ByColumn):
    """e4m3, times tokens in e4m3."""

    dtype = jnp.float8_e4m3fn
    largest = E4M3_MAX
    deviation = 1.0

    @staticmethod
    def multiply(x: Array, *parts: Array, dtype: DTypeLike | None) -> Array:
        return fp8_matmul(x, *parts, dtype=dtype)

    @staticmethod
    def _rounded(numbers: np.ndarray) -> np.ndarray:
        np.clip(numbers, -E4M3_MAX, E4M3_MAX, out=numbers)  # the quotient may round past it
        return numbers.astype(ml_dtypes.float8_e4m3fn)


def _share(size: int, shard: int, shards: int) -> tuple[int, int]:
    return shard * size // shards, (shard + 1) * size // shards
