"""Shapes of products with 4-bit weights that people run."""

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pallas_kernels.case import Case, Tiling
from pallas_kernels.quantized.quant_matmul import quant_matmul
from pallas_kernels.quantized.weights import Int4Weight, dequantize


@dataclass(frozen=True)
class QuantCase(Case):
    """M tokens times a matrix [A, C] of 4 bits; `low` where zeros differ, as in AWQ."""

    kernel: ClassVar[str] = "quant_matmul"
    tolerance: ClassVar[float] = 0.005

    M: int
    A: int
    C: int
    group: int = 128
    low: bool = False

    def make(self, key: Array) -> tuple[Array, ...]:
        """Tokens, numbers, scales, and lows where there are any."""
        keys = jax.random.split(key, 4)
        shape = (self.A // self.group, self.C)
        q = jax.random.randint(keys[0], (self.C, self.A), -8, 8, jnp.int8).astype(jnp.int4)
        low = (0.01 * jax.random.normal(keys[3], shape),) if self.low else ()
        x = jax.random.normal(keys[1], (self.M, self.A), jnp.bfloat16)
        return x, q, 0.01 * jax.random.uniform(keys[2], shape), *low

    def run(
        self, *arrays: Array, tiling: Tiling | None = None, interpret: bool = False
    ) -> Float[Array, "M C"]:
        x, weight = arrays[0], Int4Weight(*arrays[1:])
        if tiling is None and not interpret:
            return quant_matmul(x, weight)
        from pallas_kernels.quantized.mosaic_quant import mosaic_quant_matmul

        return mosaic_quant_matmul(x, weight, interpret=interpret, **(tiling or {"splits": 2}))

    def reference(self, *arrays: Array) -> Float[Array, "M C"]:
        x, weight = arrays[0], Int4Weight(*arrays[1:])
        wide = jnp.promote_types(x.dtype, jnp.float32)
        return (x.astype(wide) @ dequantize(weight).astype(wide)).astype(x.dtype)

    def small(self) -> "QuantCase":
        return replace(self, M=min(self.M, 9), A=4 * self.group, C=128)

    @property
    def bytes_moved(self) -> int:
        """4 bits a weight, 4 bytes a scale and a low, tokens in 16 bits."""
        groups = self.A // self.group * self.C
        return (
            self.A * self.C // 2
            + 4 * groups * (1 + self.low)
            + 2 * self.M * (self.A + self.C)
        )  # fmt: skip

    @property
    def flops(self) -> int:
        return 2 * self.M * self.A * self.C

    def facts(self) -> dict[str, int]:
        return {"M": self.M, "A": self.A, "C": self.C, "group": self.group}

    def tilings(self) -> tuple[Tiling, ...]:
        from pallas_kernels.quantized.mosaic_quant import SPLITS

        return tuple({"splits": n} for n in SPLITS if n * self.group <= self.A)


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
)
