"""Shapes of attention that people run."""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from pallas_kernels.attention.paged_decode import paged_decode
from pallas_kernels.attention.reference import attention_reference
from pallas_kernels.case import Case, Tiling


@dataclass(frozen=True)
class DecodeCase(Case):
    """A decode step's attention in one layer: B rows, each with `keys` keys in its pages."""

    kernel: ClassVar[str] = "paged_decode"
    tolerance: ClassVar[float] = 0.01  # bfloat16 weights of the softmax

    B: int
    N: int
    K: int
    H: int
    S: int
    keys: int
    window: int | None = None
    softcap: float | None = None

    def make(self, key: Array) -> tuple[Array, ...]:
        keys = jax.random.split(key, 4)
        width = -(-self.keys // self.S)
        pages = (self.B * width + 1, self.K, self.S, self.H)
        normal = partial(jax.random.normal, dtype=jnp.bfloat16)
        table = 1 + jax.random.permutation(keys[3], self.B * width).reshape(self.B, width)
        return (
            normal(keys[0], (self.B, self.N, self.H)),
            normal(keys[1], pages),
            normal(keys[2], pages),
            table.astype(jnp.int32),
            jnp.full(self.B, self.keys - 1, jnp.int32),
        )

    def run(
        self,
        q: Float[Array, "B N H"],
        k_pages: Float[Array, "P K S H"],
        v_pages: Float[Array, "P K S H"],
        page_table: Int32[Array, "B MP"],
        positions: Int32[Array, " B"],
        *,
        tiling: Tiling | None = None,
        interpret: bool = False,
    ) -> Float[Array, "B N H"]:
        kernel = paged_decode
        if tiling is not None or interpret:
            from pallas_kernels.attention.mosaic_decode import mosaic_decode

            kernel = partial(mosaic_decode, **(tiling or {"splits": 2}), interpret=interpret)
        return kernel(
            q, k_pages, v_pages, page_table, positions,
            scale=self.H**-0.5, window=self.window, softcap=self.softcap,
        )  # fmt: skip

    def reference(
        self,
        q: Float[Array, "B N H"],
        k_pages: Float[Array, "P K S H"],
        v_pages: Float[Array, "P K S H"],
        page_table: Int32[Array, "B MP"],
        positions: Int32[Array, " B"],
    ) -> Float[Array, "B N H"]:
        rows = jnp.arange(self.B, dtype=jnp.int32)
        return attention_reference(
            q, k_pages, v_pages, page_table, rows, positions,
            scale=self.H**-0.5, window=self.window, softcap=self.softcap,
        )  # fmt: skip

    def small(self) -> "DecodeCase":
        return replace(self, B=2, K=1, N=self.N // self.K, keys=min(self.keys, 2 * self.S + 3))

    @property
    def seen(self) -> int:
        """Keys that a row's query sees."""
        return min(self.keys, self.window or self.keys)

    @property
    def bytes_moved(self) -> int:
        """Keys and values that are seen, queries and results; 16 bits each."""
        return 2 * (2 * self.B * self.K * self.seen * self.H + 2 * self.B * self.N * self.H)

    @property
    def flops(self) -> int:
        return 4 * self.B * self.N * self.seen * self.H

    def tilings(self) -> tuple[Tiling, ...]:
        from pallas_kernels.attention.mosaic_decode import SPLITS, TILE

        return tuple({"splits": n} for n in SPLITS if n <= -(-self.keys // TILE))


CASES: tuple[Case, ...] = (
    DecodeCase("llama-3.1-8b", 64, 32, 8, 128, 16, 4096),
    DecodeCase("llama-3.1-8b page 32", 64, 32, 8, 128, 32, 4096),
    DecodeCase("llama-3.1-8b page 64", 64, 32, 8, 128, 64, 4096),
    DecodeCase("llama-3.1-8b page 128", 64, 32, 8, 128, 128, 4096),
    DecodeCase("llama-3.1-8b one row, 1k", 1, 32, 8, 128, 64, 1024),
    DecodeCase("llama-3.1-8b one row, 128k", 1, 32, 8, 128, 64, 131072),
    DecodeCase("llama-3.2-1b", 64, 32, 8, 64, 64, 4096),
    DecodeCase("gpt2", 64, 12, 12, 64, 64, 1024),
    DecodeCase("gemma-2-9b", 64, 16, 8, 256, 64, 8192, 4096, 50.0),
    DecodeCase("gemma-3-1b", 64, 4, 1, 256, 64, 8192, 512),
    DecodeCase("multi-query, 16 heads", 64, 16, 1, 128, 64, 4096),
)
