"""Shapes of latent attention that people run."""

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array

from pallas_kernels.attention.query_blocks import QueryBlocks, query_blocks
from pallas_kernels.case import Case, Tiling
from pallas_kernels.mla.latent_attention import mla_decode, mla_ragged
from pallas_kernels.mla.reference import mla_reference
from pallas_kernels.mla.sizes import SPLITS, decode_facts

_H, _V = 576, 512
_SCALE = 192**-0.5  # of DeepSeek V3's heads before their weights are absorbed: 128 + 64


def _pool(key: Array, rows: int, keys: int, S: int) -> tuple[Array, Array]:
    """Latents in bfloat16 and a table whose rows own shuffled pages of them."""
    width = -(-keys // S)
    normal, shuffle = jax.random.split(key)
    pages = jax.random.normal(normal, (rows * width + 1, S, _H), jnp.bfloat16)
    table = 1 + jax.random.permutation(shuffle, rows * width).reshape(rows, width)
    return pages, table.astype(jnp.int32)


@dataclass(frozen=True)
class LatentDecodeCase(Case):
    """A decode step's attention in one layer: B rows, each with `keys` latents in its pages."""

    kernel: ClassVar[str] = "mla_decode"
    tolerance: ClassVar[float] = 0.01  # bfloat16 weights of the softmax

    B: int
    N: int
    S: int
    keys: int

    def make(self, key: Array) -> tuple[Array, ...]:
        of_q, of_pages = jax.random.split(key)
        q = jax.random.normal(of_q, (self.B, self.N, _H), jnp.bfloat16)
        where = jnp.full(self.B, self.keys - 1, jnp.int32)
        return (q, *_pool(of_pages, self.B, self.keys, self.S), where)

    def run(self, *arrays: Array, tiling: Tiling | None = None, interpret: bool = False) -> Array:
        if tiling is None and not interpret:
            return mla_decode(*arrays, scale=_SCALE, value_dim=_V)
        from pallas_kernels.mla.mosaic_mla import mosaic_mla_decode

        splits = {"splits": 2} if tiling is None else tiling
        return mosaic_mla_decode(*arrays, scale=_SCALE, interpret=interpret, **splits)

    def reference(self, *arrays: Array) -> Array:
        q, pages, table, where = arrays
        rows = jnp.arange(self.B, dtype=jnp.int32)
        return mla_reference(q, pages, table, rows, where, scale=_SCALE, value_dim=_V)

    def small(self) -> "LatentDecodeCase":
        return replace(self, B=2, keys=self.S + 35)

    @property
    def bytes_moved(self) -> int:
        """Latents, queries and results; 16 bits each."""
        return 2 * self.B * (self.keys * _H + self.N * (_H + _V))

    @property
    def flops(self) -> int:
        return 2 * self.B * self.N * self.keys * (_H + _V)

    def facts(self) -> dict[str, int]:
        return decode_facts((self.B, self.N), self.keys)

    def tilings(self) -> tuple[Tiling, ...]:
        return tuple({"splits": n} for n in SPLITS if n * 64 <= self.keys)


@dataclass(frozen=True)
class LatentChunkCase(Case):
    """A chunk of T tokens of one row, after `history` latents in its pages."""

    kernel: ClassVar[str] = "mla_ragged"
    tolerance: ClassVar[float] = 0.01

    T: int
    N: int
    S: int
    history: int

    def make(self, key: Array) -> tuple[Array, ...]:
        of_q, of_pages = jax.random.split(key)
        q = jax.random.normal(of_q, (self.T, self.N, _H), jnp.bfloat16)
        where = self.history + jnp.arange(self.T, dtype=jnp.int32)
        blocks = query_blocks(jnp.zeros(1, jnp.int32), jnp.full(1, self.T, jnp.int32), self.T)
        return (q, *_pool(of_pages, 1, self.history + self.T, self.S), where, *blocks)

    def run(self, *arrays: Array, tiling: Tiling | None = None, interpret: bool = False) -> Array:
        blocks = QueryBlocks(*arrays[4:])
        if not interpret:
            return mla_ragged(*arrays[:4], blocks=blocks, scale=_SCALE, value_dim=_V)
        from pallas_kernels.mla.mosaic_mla import mosaic_mla_ragged

        return mosaic_mla_ragged(*arrays[:4], blocks=blocks, scale=_SCALE, interpret=True)

    def reference(self, *arrays: Array) -> Array:
        q, pages, table, where = arrays[:4]
        return mla_reference(
            q, pages, table, jnp.zeros_like(where), where, scale=_SCALE, value_dim=_V
        )

    def small(self) -> "LatentChunkCase":
        return replace(self, T=6, N=min(self.N, 64), history=61)

    @property
    def bytes_moved(self) -> int:
        """Latents, queries and results; 16 bits each."""
        return 2 * ((self.history + self.T) * _H + self.T * self.N * (_H + _V))

    @property
    def flops(self) -> int:
        seen = self.T * self.history + self.T * (self.T + 1) // 2
        return 2 * self.N * seen * (_H + _V)


CASES: tuple[Case, ...] = (
    LatentDecodeCase("deepseek-v3", 64, 128, 64, 4096),
    LatentDecodeCase("deepseek-v3 of 8 devices", 64, 16, 64, 4096),
    LatentDecodeCase("deepseek-v2-lite, page 16", 64, 16, 16, 4096),
    LatentDecodeCase("glm-4-moe-lite", 64, 20, 64, 4096),
    LatentDecodeCase("deepseek-v3 one row, 64k", 1, 128, 64, 65536),
    LatentDecodeCase("deepseek-v3 of 8, one row, 64k", 1, 16, 64, 65536),
    LatentDecodeCase("kimi-k2", 64, 64, 64, 4096),
    LatentChunkCase("deepseek-v3 chunk", 2048, 128, 64, 8192),
    LatentChunkCase("deepseek-v3 of 8, chunk", 2048, 16, 64, 8192),
    LatentChunkCase("deepseek-v2-lite, page 16, chunk", 2048, 16, 16, 8192),
)
