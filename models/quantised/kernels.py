"""Matrices of linear maps that stay in few bits on the devices, and are multiplied as they lie.

    turned   numbers float32 [C, A]                          nothing is quantised
    int8     numbers int8 [C, A]    scale [C]                tokens become int8 too
    fp8      numbers e4m3 [C, A]    scale [C]                tokens become e4m3 too
    groups   words int32 [C, _]     scale, low [g, C]        4 or 8 bits; tokens stay as they are

A is inputs and C outputs. Where devices divide the inputs, each has scales of its own for its part
of them, so that none has to know what the others hold. Owns how the parts lie, are divided and
multiplied, and how they are made from numbers; products are `pallas_kernels.quantized`'s. Knows no
checkpoint, and no linear map by name.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from models.errors import UnsupportedError
from models.sharding import MESH_AXES, on_each_device, partition_spec
from pallas_kernels.across import product_across
from pallas_kernels.quantized import (
    Int4Weight,
    Int8Weight,
    fp8_matmul,
    int8_matmul,
    quant_matmul,
)
from pallas_kernels.quantized.scaled_matmul import E4M3_MAX
from pallas_kernels.quantized.weights import PLANE, WORDS_OF_BLOCK, pack_words

Axes = tuple[str | None, ...]
Parts = dict[str, np.ndarray]


class Quantised(NamedTuple):
    """Columns of a matrix: w[a, c] = scale[c, g] (numbers[c, a] - zeros[c, g]), g = a // group."""

    numbers: np.ndarray  # [C, A]
    scale: np.ndarray  # float32 [C, groups]
    zeros: np.ndarray | None = None  # float32 [C, groups]


class Packed(nnx.Module):
    """A parameter whose numbers lie in few bits, with scales beside them."""

    random_mask: int | None = None  # of words: the bits that may be random, if not all
    random_deviation: float = 1.0  # of parts that are neither whole numbers nor constants

    def __init__(self, shape: tuple[int, ...], axes: Axes, mesh: Mesh):
        self.shape, self.axes, self.mesh = shape, axes, mesh

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, int]:
        """Names of the arrays it is made of, and which axis of a matrix's are the columns."""

    @abstractmethod
    def encode(self, weights: Quantised) -> Parts:
        """The parts of some columns, as they lie on a device that has these inputs of them."""

    def quantise(self, matrix: np.ndarray) -> Quantised:
        """What is nearest to the columns of a float32 matrix [C, A], which is overwritten."""
        raise TypeError(f"{type(self).__name__} takes checkpoints that are quantised")

    @property
    @abstractmethod
    def random_constants(self) -> Mapping[str, float]:
        """Parts with which random bits are a matrix of deviation 1 / sqrt(inputs)."""

    def bounds(self, shard: int) -> list[tuple[int, int]]:
        """What the device of this number has of each axis."""
        return [
            (0, size) if MESH_AXES[axis] is None else _share(size, shard, self.mesh.size)
            for size, axis in zip(self.shape, self.axes, strict=True)
        ]


class PackedKernel(Packed):
    """W [inputs, outputs] in few bits, in the place of a linear map's kernel."""

    def __call__(
        self, x: Float[Array, "T inputs"], dtype: DTypeLike | None = None
    ) -> Float[Array, "T outputs"]:
        """x W, in `dtype` or that of `x`; each device multiplies what it has."""
        inputs, outputs = (MESH_AXES[axis] for axis in self.axes)
        parameters = [getattr(self, name) for name in self.parts]

        def here(x: Array, *parts: Array) -> Array:
            y = self.multiply(x, parts, dtype or x.dtype)
            return y if inputs is None or self.mesh.size == 1 else lax.psum(y, inputs)

        specs = PartitionSpec(None, inputs), *(partition_spec(p.axes) for p in parameters)
        divided = on_each_device(here, self.mesh, specs, PartitionSpec(None, outputs))
        return divided(x, *(parameter[...] for parameter in parameters))

    @abstractmethod
    def multiply(self, x: Array, parts: Sequence[Array], dtype: DTypeLike) -> Array:
        """x W on one device."""

    @property
    def input_shards(self) -> int:
        """Among how many devices the inputs are divided."""
        return 1 if MESH_AXES[self.axes[0]] is None else self.mesh.size


class TurnedKernel(Packed):
    """Float32 as it is, with the inputs of an output side by side: for one CPU, and `across.py`."""

    def __init__(self, shape: tuple[int, int], axes: Axes, mesh: Mesh):
        super().__init__(shape, axes, mesh)
        self.numbers = nnx.Param(jnp.zeros(shape[::-1], jnp.float32), axes=axes[::-1])
        self.random_deviation = shape[0] ** -0.5

    @property
    def parts(self) -> Mapping[str, int]:
        return {"numbers": 0}

    def encode(self, weights: Quantised) -> Parts:
        return {"numbers": weights.numbers}

    def quantise(self, matrix: np.ndarray) -> Quantised:
        return Quantised(matrix, np.ones((len(matrix), 1), np.float32))

    @property
    def random_constants(self) -> Mapping[str, float]:
        return {}

    def __call__(
        self, x: Float[Array, "T inputs"], dtype: DTypeLike | None = None
    ) -> Float[Array, "T outputs"]:
        """x W, in `dtype` or that of `x`."""
        return product_across(x, self.numbers[...], dtype or x.dtype)


class ByColumn(PackedKernel):
    """Eight bits, and a scale for each output and part of the inputs."""

    dtype: ClassVar[Any]
    largest: ClassVar[float]
    deviation: ClassVar[float]  # of random numbers

    def __init__(self, shape: tuple[int, int], axes: Axes, mesh: Mesh):
        super().__init__(shape, axes, mesh)
        divided = MESH_AXES[axes[0]] is not None
        self.numbers = nnx.Param(jnp.zeros(shape[::-1], self.dtype), axes=axes[::-1])
        # a vector, so that those of all layers are one leaf
        scale = jnp.zeros(shape[1] * self.input_shards, jnp.float32)
        self.scale = nnx.Param(scale, axes=axes[:1] if divided else axes[1:])

    @property
    def parts(self) -> Mapping[str, int]:
        return {"numbers": 0, "scale": 0}

    def encode(self, weights: Quantised) -> Parts:
        return {"numbers": weights.numbers, "scale": np.ascontiguousarray(weights.scale[:, 0])}

    def quantise(self, matrix: np.ndarray) -> Quantised:
        return self.nearest(matrix)

    @classmethod
    def nearest(cls, matrix: np.ndarray) -> Quantised:
        """Of a float32 matrix [C, A], which is overwritten; the largest of a column is exact."""
        largest = np.maximum(matrix.max(axis=1, keepdims=True), -matrix.min(axis=1, keepdims=True))
        scale = largest / np.float32(cls.largest)
        matrix /= np.where(scale > 0, scale, 1)
        return Quantised(cls._rounded(matrix), scale)

    @staticmethod
    @abstractmethod
    def _rounded(numbers: np.ndarray) -> np.ndarray: ...

    @property
    def random_constants(self) -> Mapping[str, float]:
        return {"scale": self.shape[0] ** -0.5 / self.deviation}


class Int8Kernel(ByColumn):
    """Whole numbers of 8 bits, times tokens in 8 bits."""

    dtype = jnp.int8
    largest = 127.0
    deviation = 73.9  # of -128 .. 127

    def multiply(self, x: Array, parts: Sequence[Array], dtype: DTypeLike) -> Array:
        return int8_matmul(x, parts[0], parts[1], dtype)

    @staticmethod
    def _rounded(numbers: np.ndarray) -> np.ndarray:
        np.rint(numbers, out=numbers)
        return numbers.astype(np.int8)


class Fp8Kernel(ByColumn):
    """e4m3, times tokens in e4m3."""

    dtype = jnp.float8_e4m3fn
    largest = E4M3_MAX
    deviation = 1.0

    def multiply(self, x: Array, parts: Sequence[Array], dtype: DTypeLike) -> Array:
        return fp8_matmul(x, parts[0], parts[1], dtype)

    @staticmethod
    def _rounded(numbers: np.ndarray) -> np.ndarray:
        np.clip(numbers, -E4M3_MAX, E4M3_MAX, out=numbers)  # the quotient may round past it
        return numbers.astype(ml_dtypes.float8_e4m3fn)


class GroupKernel(PackedKernel):
    """Whole numbers of 4 or 8 bits, and a scale for each output and group of inputs.

    Raises:
        UnsupportedError: sizes or groups do not fit, by themselves or divided among the devices.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        axes: Axes,
        mesh: Mesh,
        *,
        bits: int,
        group: int,
        zeros: bool,
        dtype: DTypeLike,
    ):
        super().__init__(shape, axes, mesh)
        self.bits = bits
        inputs, outputs = shape
        here = inputs // self.input_shards
        block = WORDS_OF_BLOCK * 32 // bits
        # a group longer than what a device has is one there
        if here % block or (here % group and group % here) or group % PLANE:
            raise UnsupportedError(
                f"Weights of {bits} bits with {here} inputs on a device in groups of {group} are "
                f"not supported: inputs must be a multiple of {block} and of the group, and this "
                f"one a multiple of {PLANE}; use a smaller --tensor-parallel-size or another "
                "checkpoint."
            )
        groups = self.input_shards * max(1, here // group)
        words = jnp.zeros((outputs, inputs * bits // 32), jnp.int32)
        self.words = nnx.Param(words, axes=axes[::-1])
        self.scale = nnx.Param(jnp.zeros((groups, outputs), dtype), axes=axes)
        self.low = nnx.Param(jnp.zeros((groups, outputs), dtype), axes=axes) if zeros else None

    @property
    def parts(self) -> Mapping[str, int]:
        every = {"words": 0, "scale": 1, "low": 1}
        return {name: axis for name, axis in every.items() if getattr(self, name) is not None}

    def multiply(self, x: Array, parts: Sequence[Array], dtype: DTypeLike) -> Array:
        weight = Int4Weight(*parts) if self.bits == 4 else Int8Weight(*parts)
        return quant_matmul(x, weight).astype(dtype)

    def encode(self, weights: Quantised) -> Parts:
        numbers, scale, zeros = weights
        if self.bits == 8:  # numbers from 0 on, which the kernel wants with signs
            numbers = numbers ^ np.uint8(128)
        parts = {"words": pack_words(numbers, self.bits), "scale": scale}
        if zeros is not None:
            parts["low"] = -scale * zeros
        return {
            name: values if name == "words" else values.T.astype(self.scale.get_value().dtype)
            for name, values in parts.items()
        }

    @property
    def random_constants(self) -> Mapping[str, float]:
        scale = self.shape[0] ** -0.5 / (2**self.bits / 12**0.5)
        return {"scale": scale, "low": -(2 ** (self.bits - 1)) * scale}


def _share(size: int, shard: int, shards: int) -> tuple[int, int]:
    return shard * size // shards, (shard + 1) * size // shards
