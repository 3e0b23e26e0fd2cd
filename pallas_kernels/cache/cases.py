"""Shapes of the write between projection and attention that people run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from pallas_kernels.cache.qkv_write import VERSIONS, qkv_write
from pallas_kernels.cache.reference import HeadNorms, Pages, qkv_write_reference
from pallas_kernels.case import Case, Tiling
from pallas_kernels.dispatch import Backend

_SLOTS = 64  # of a page


@dataclass(frozen=True)
class WriteCase(Case):
    """The write of one layer in a step of T tokens."""

    kernel: ClassVar[str] = "qkv_write"
    versions: ClassVar[tuple[Backend, ...]] = VERSIONS
    tolerance: ClassVar[float] = 0.01
    updated: ClassVar[Mapping[int, int]] = {1: 1, 2: 2}

    T: int
    N: int
    K: int
    H: int
    R: int  # dimensions of a head that are rotated
    norms: bool = False

    def make(self, key: Array) -> tuple[Array, ...]:
        keys = jax.random.split(key, 3)
        count = max(64, 2 * self.T // _SLOTS) + 1  # of pages
        places = jax.random.permutation(keys[0], count * _SLOTS)[: self.T].astype(jnp.int32)
        angles = jax.random.uniform(keys[1], (self.T, self.R // 2), maxval=6.0)
        weight = 1 + jax.random.normal(keys[1], (self.H,)) / 8
        columns = (self.N + 2 * self.K) * self.H
        return (
            jax.random.normal(keys[2], (self.T, columns), jnp.bfloat16),
            *self._pages((count, self.K, _SLOTS, self._width)),
            places // _SLOTS,
            places % _SLOTS,
            *((jnp.cos(angles), jnp.sin(angles)) if self.R else ()),
            *((weight, weight[::-1]) if self.norms else ()),
        )

    def run(
        self, *arrays: Array, tiling: Tiling | None = None, interpret: bool = False
    ) -> tuple[Array, ...]:
        kernel = qkv_write
        if interpret:
            from pallas_kernels.cache.mosaic_qkv_write import mosaic_qkv_write

            kernel = partial(mosaic_qkv_write, interpret=True)
        return self._call(kernel, *arrays)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        return self._call(qkv_write_reference, *arrays)

    def small(self) -> "WriteCase":
        return replace(self, name="small", T=2, N=min(self.N, 4), K=min(self.K, 2))

    @property
    def bytes_moved(self) -> int:
        """The projection, cosines and sines; queries, keys and values."""
        read = 2 * (self.N + 2 * self.K) * self.H + 4 * self.R
        return self.T * (read + 2 * self.N * self._width + 2 * self.K * self._bytes_a_head)

    @property
    def flops(self) -> int:
        """None of them on the tensor cores."""
        return 4 * self.T * (self.N + self.K) * self.H

    @property
    def _width(self) -> int:
        """Of a head in pages."""
        return -(-self.H // 64) * 64

    @property
    def _bytes_a_head(self) -> int:
        return 2 * self._width

    def _pages(self, shape: tuple[int, ...]) -> tuple[Array, ...]:
        return (jnp.zeros(shape, jnp.bfloat16),) * 2

    def _call(self, kernel: Any, qkv: Array, *arrays: Any) -> tuple[Array, ...]:
        count = len(self.updated)
        pages, (page, slot), rest = arrays[:count], arrays[count : count + 2], arrays[count + 2 :]
        turn, weights = (rest[:2], rest[2:]) if self.R else (None, rest)
        norms = HeadNorms(weights[0], weights[1], eps=1e-6) if weights else None
        q, written = kernel(qkv, Pages(*pages), page, slot, head_dim=self.H, turn=turn, norms=norms)
        return q, *(array for array in written if array is not None)


@dataclass(frozen=True)
class EightBitWriteCase(WriteCase):
    """The same, into pages of eight bits and their scales."""

    updated: ClassVar[Mapping[int, int]] = {1: 1, 2: 2, 3: 3, 4: 4}

    cache: str = "int8"

    @property
    def _bytes_a_head(self) -> int:
        return self._width + 4

    def _pages(self, shape: tuple[int, ...]) -> tuple[Array, ...]:
        return (jnp.zeros(shape, self.cache),) * 2 + (jnp.zeros(shape[:3]),) * 2

    def _call(self, kernel: Any, qkv: Array, *arrays: Any) -> tuple[Array, ...]:
        pages = (array.astype(self.cache) for array in arrays[:2])  # which may have been widened
        return super()._call(kernel, qkv, *pages, *arrays[2:])


CASES: tuple[Case, ...] = (
    WriteCase("llama-3.1-8b, 64 rows", 64, 32, 8, 128, 128),
    WriteCase("llama-3.1-8b, one row", 1, 32, 8, 128, 128),
    WriteCase("llama-3.1-8b, 2k tokens", 2048, 32, 8, 128, 128),
    WriteCase("llama-3.1-8b, of 8 GPUs", 64, 4, 1, 128, 128),
    WriteCase("llama-3.1-405b, 64 rows", 64, 128, 8, 128, 128),
    WriteCase("llama-3.2-1b, 64 rows", 64, 32, 8, 64, 64),
    WriteCase("qwen3-8b, 64 rows", 64, 32, 8, 128, 128, True),
    WriteCase("qwen3-8b, 2k tokens", 2048, 32, 8, 128, 128, True),
    WriteCase("gemma-3-1b, 64 rows", 64, 4, 1, 256, 256, True),
    WriteCase("gemma-4-31b, 64 rows, no window", 64, 32, 4, 512, 512, True),
    WriteCase("phi-3-mini, 64 rows", 64, 32, 32, 96, 96),
    WriteCase("phi-4-mini, 64 rows", 64, 24, 8, 128, 96),
    WriteCase("stablelm-2-1.6b, 64 rows", 64, 32, 32, 64, 16),
    WriteCase("gpt2, 64 rows", 64, 12, 12, 64, 0),
    EightBitWriteCase("llama-3.1-8b int8, 64 rows", 64, 32, 8, 128, 128),
    EightBitWriteCase("llama-3.1-8b fp8, 64 rows", 64, 32, 8, 128, 128, cache="float8_e4m3fn"),
    EightBitWriteCase("qwen3-8b int8, 2k tokens", 2048, 32, 8, 128, 128, True),
)
