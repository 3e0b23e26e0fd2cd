"""Shapes of products with quantised weights that people run."""

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pallas_kernels.case import Case, Tiling
from pallas_kernels.quantized.quant_matmul import quant_matmul
from pallas_kernels.quantized.reference import quant_matmul_reference
from pallas_kernels.quantized.weights import (
    Int4Weight,
    Int8Weight,
    Nf4Weight,
    QuantizedWeight,
)

_KINDS = {"int4": Int4Weight, "nf4": Nf4Weight, "int8": Int8Weight}


@dataclass(frozen=True)
class QuantCase(Case):
    """M tokens times a matrix [A, C]; `low` where zeros differ, as in AWQ and Q4_K."""

    kernel: ClassVar[str] = "quant_matmul"
    tolerance: ClassVar[float] = 0.005

    M: int
    A: int
    C: int
    group: int = 128
    low: bool = False
    kind: str = "int4"

    @property
    def bits(self) -> int:
        return 8 if self.kind == "int8" else 4

    def make(self, key: Array) -> tuple[Array, ...]:
        """Tokens, words, scales in the tokens' 16 bits as a loader casts them, and lows."""
        keys = jax.random.split(key, 4)
        shape = (self.A // self.group, self.C)
        words = jax.random.bits(keys[0], (self.C, self.A * self.bits // 32), jnp.uint32)
        scale = 0.01 * jax.random.uniform(keys[2], shape, jnp.bfloat16)
        low = 0.01 * jax.random.normal(keys[3], shape, jnp.bfloat16)
        x = jax.random.normal(keys[1], (self.M, self.A), jnp.bfloat16)
        return x, words.view(jnp.int32), scale, *((low,) if self.low else ())

    def weight(self, *arrays: Array) -> QuantizedWeight:
        kind: type[QuantizedWeight] = _KINDS[self.kind]
        return kind(*arrays)

    def run(
        self, *arrays: Array, tiling: Tiling | None = None, interpret: bool = False
    ) -> Float[Array, "M C"]:
        x, weight = arrays[0], self.weight(*arrays[1:])
        if tiling is None and not interpret:
            return quant_matmul(x, weight)
        from pallas_kernels.quantized.mosaic_quant import mosaic_quant_matmul

        return mosaic_quant_matmul(x, weight, interpret=interpret, **(tiling or {"splits": 2}))

    def reference(self, *arrays: Array) -> Float[Array, "M C"]:
        return quant_matmul_reference(arrays[0], self.weight(*arrays[1:]))

    def small(self) -> "QuantCase":
        group = min(self.group, 256)
        return replace(self, M=min(self.M, 9), A=max(256, 2 * group), C=128, group=group)

    @property
    def bytes_moved(self) -> int:
        """The words, two bytes a scale and a low, tokens in 16 bits."""
        groups = self.A // self.group * self.C
        return (
            self.A * self.C * self.bits // 8
            + 2 * groups * (1 + self.low)
            + 2 * self.M * (self.A + self.C)
        )  # fmt: skip

    @property
    def flops(self) -> int:
        return 2 * self.M * self.A * self.C

    def facts(self) -> dict[str, int]:
        return {"M": self.M, "A": self.A, "C": self.C, "group": self.group, "bits": self.bits}

    def tilings(self) -> tuple[Tiling, ...]:
        from pallas_kernels.quantized.mosaic_quant import SPLITS

        return tuple({"splits": n} for n in SPLITS if n * 256 <= self.A)


CASES: tuple[Case, ...] = (
    QuantCase("llama-3.1-8b qkv, one row", 1, 4096, 6144),
    QuantCase("llama-3.1-8b o, one row", 1, 4096, 4096),
    QuantCase("llama-3.1-8b gate-up, one row", 1, 4096, 28672),
    QuantCase("llama-3.1-8b down, one row", 1, 14336, 4096),
    QuantCase("llama-3.1-8b gate-up, 64 rows", 64, 4096, 28672),
    QuantCase("llama-3.1-8b gate-up, 256 rows", 256, 4096, 28672),
    QuantCase("llama-3.1-8b down, AWQ, 8 rows", 8, 14336, 4096, 128, True),
    QuantCase("llama-3.1-70b gate-up, one row", 1, 8192, 57344),
    QuantCase("groups of 64, 16 rows", 16, 4096, 4096, 64),
    QuantCase("llama-3.1-8b gate-up, Q4_0", 1, 4096, 28672, 32),
    QuantCase("llama-3.1-8b gate-up, Q4_K", 1, 4096, 28672, 32, True),
    QuantCase("Q4_K, 128 rows", 128, 4096, 28672, 32, True),
    QuantCase("llama-3.1-8b gate-up, Q8_0", 1, 4096, 28672, 32, False, "int8"),
    QuantCase("llama-3.1-8b gate-up, NF4", 1, 4096, 28672, 64, False, "nf4"),
    QuantCase("one scale a column, 8 rows", 8, 4096, 28672, 4096, False, "int8"),
)
