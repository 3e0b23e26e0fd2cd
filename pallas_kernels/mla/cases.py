"""Shapes of latent attention that people run."""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from pallas_kernels.attention.query_blocks import query_blocks
from pallas_kernels.case import Case, Tiling
from pallas_kernels.mla.latent_attention import mla_decode, mla_ragged
from pallas_kernels.mla.reference import mla_reference
from pallas_kernels.mla.sizes import ROTARY, TILE, VALUES
from pallas_kernels.mla.splits import SPLITS, decode_facts

_H, _V = VALUES + ROTARY, VALUES
_SCALE = 192**-0.5  # of their heads before the weights are absorbed: 128 + 64
_PIECE = 64  # tokens


@dataclass(frozen=True)
class LatentDecodeCase(Case):
    """A decode step's latent attention in one layer: B rows of `keys` latents, N heads."""

    kernel: ClassVar[str] = "mla_decode"
    tolerance: ClassVar[float] = 0.01  # bfloat16 weights of the softmax

    B: int
    N: int
    keys: int
    S: int = 64

    def make(self, key: Array) -> tuple[Array, ...]:
        of_q, of_pages = jax.random.split(key)
        q = jax.random.normal(of_q, (self.B, self.N, _H), jnp.bfloat16)
        positions = jnp.full(self.B, self.keys - 1, jnp.int32)
        return (q, *_pool(of_pages, self.B, self.keys, self.S), positions)

    def run(
        self,
        q: Float[Array, "B N H"],
        pages: Float[Array, "P S H"],
        page_table: Int32[Array, "B MP"],
        positions: Int32[Array, " B"],
        *,
        tiling: Tiling | None = None,
        interpret: bool = False,
    ) -> Float[Array, "B N V"]:
        if tiling is None and not interpret:
            return mla_decode(q, pages, page_table, positions, scale=_SCALE, value_dim=_V)
        from pallas_kernels.mla.mosaic_mla import mosaic_mla_decode

        splits = 2 if tiling is None else tiling["splits"]
        return mosaic_mla_decode(
            q, pages, page_table, positions, scale=_SCALE, splits=splits, interpret=interpret
        )

    def reference(
        self,
        q: Float[Array, "B N H"],
        pages: Float[Array, "P S H"],
        page_table: Int32[Array, "B MP"],
        positions: Int32[Array, " B"],
    ) -> Float[Array, "B N V"]:
        rows = jnp.arange(self.B, dtype=jnp.int32)
        return mla_reference(q, pages, page_table, rows, positions, scale=_SCALE, value_dim=_V)

    def small(self) -> "LatentDecodeCase":
        N = min(self.N, 64)
        return replace(self, name=f"{N} heads, page {self.S}", B=1, N=N, keys=self.S + 35)

    @property
    def bytes_moved(self) -> int:
        """Every latent once, queries and results; 16 bits each."""
        return 2 * self.B * (self.keys * _H + self.N * (_H + _V))

    @property
    def flops(self) -> int:
        return 2 * self.B * self.N * self.keys * (_H + _V)

    def facts(self) -> dict[str, int]:
        keys = -(-self.keys // self.S) * self.S  # as long as the table
        return dict(decode_facts(self.B, self.N, keys, self.S))

    def tilings(self) -> tuple[Tiling, ...]:
        return tuple({"splits": n} for n in SPLITS if n * TILE <= self.keys)


@dataclass(frozen=True)
class LatentRaggedCase(Case):
    """A mixed step's latent attention: `rows` are (tokens, tokens before them) of each."""

    kernel: ClassVar[str] = "mla_ragged"
    tolerance: ClassVar[float] = 0.01

    rows: tuple[tuple[int, int], ...]
    N: int
    S: int = 64

    def make(self, key: Array) -> tuple[Array, ...]:
        of_q, of_pages = jax.random.split(key)
        tokens = sum(count for count, _ in self.rows)
        q = jax.random.normal(of_q, (tokens, self.N, _H), jnp.bfloat16)
        return (q, *_pool(of_pages, len(self.rows), max(map(sum, self.rows)), self.S))

    def run(
        self,
        q: Float[Array, "T N H"],
        pages: Float[Array, "P S H"],
        page_table: Int32[Array, "B MP"],
        *,
        tiling: Tiling | None = None,
        interpret: bool = False,
    ) -> Float[Array, "T N V"]:
        start, count, _, positions = self._places()
        blocks = query_blocks(start, count, q.shape[0])
        arrays = q, pages, page_table, positions
        if not interpret:
            return mla_ragged(*arrays, blocks=blocks, scale=_SCALE, value_dim=_V)
        from pallas_kernels.mla.mosaic_mla import mosaic_mla_ragged

        return mosaic_mla_ragged(*arrays, blocks=blocks, scale=_SCALE, least=1, interpret=True)

    def reference(
        self,
        q: Float[Array, "T N H"],
        pages: Float[Array, "P S H"],
        page_table: Int32[Array, "B MP"],
    ) -> Float[Array, "T N V"]:
        """In pieces: the specification gathers every latent for every token."""
        _, _, row, positions = self._places()
        pieces = [slice(i, i + _PIECE) for i in range(0, q.shape[0], _PIECE)]
        attend = partial(mla_reference, scale=_SCALE, value_dim=_V)
        return jnp.concatenate(
            [attend(q[p], pages, page_table, row[p], positions[p]) for p in pieces]
        )

    def small(self) -> "LatentRaggedCase":
        rows, N = ((3, 61),), min(self.N, 64)
        return replace(self, name=f"{N} heads, page {self.S}", rows=rows, N=N)

    @property
    def bytes_moved(self) -> int:
        """Each row's latents once, queries and results; 16 bits each."""
        latents, tokens = sum(map(sum, self.rows)), sum(count for count, _ in self.rows)
        return 2 * (latents * _H + tokens * self.N * (_H + _V))

    @property
    def flops(self) -> int:
        """Of the pairs that see each other."""
        pairs = sum(count * before + count * (count + 1) // 2 for count, before in self.rows)
        return 2 * self.N * pairs * (_H + _V)

    def _places(self) -> tuple[Array, ...]:
        """First token and number of tokens of each row; row and position of each token."""
        counts, before = (np.array(numbers) for numbers in zip(*self.rows, strict=True))
        start = np.cumsum(counts) - counts
        row = np.repeat(np.arange(len(counts)), counts)
        positions = before[row] + np.arange(len(row)) - start[row]
        return tuple(jnp.asarray(x, jnp.int32) for x in (start, counts, row, positions))


def _pool(key: Array, rows: int, keys: int, S: int) -> tuple[Array, Array]:
    """Latents in bfloat16 and a table whose rows own shuffled pages of them."""
    width = -(-keys // S)
    normal, shuffle = jax.random.split(key)
    pages = jax.random.normal(normal, (rows * width + 1, S, _H), jnp.bfloat16)
    table = 1 + jax.random.permutation(shuffle, rows * width).reshape(rows, width)
    return pages, table.astype(jnp.int32)


CASES: tuple[Case, ...] = (
    LatentDecodeCase("deepseek-v3, 64 rows, 1k", 64, 128, 1024),
    LatentDecodeCase("deepseek-v3, 64 rows, 4k", 64, 128, 4096),
    LatentDecodeCase("deepseek-v3, 8 rows, 32k", 8, 128, 32768),
    LatentDecodeCase("deepseek-v3, one row, 1k", 1, 128, 1024),
    LatentDecodeCase("deepseek-v3, one row, 128k", 1, 128, 131072),
    LatentDecodeCase("deepseek-v3 of 8, 64 rows, 4k", 64, 16, 4096),
    LatentDecodeCase("deepseek-v3 of 8, 256 rows, 4k", 256, 16, 4096),
    LatentDecodeCase("deepseek-v3 of 8, one row, 128k", 1, 16, 131072),
    LatentDecodeCase("kimi-k2, 64 rows, 4k", 64, 64, 4096),
    LatentDecodeCase("kimi-k2 of 8, 64 rows, 4k", 64, 8, 4096),
    LatentDecodeCase("deepseek-v2-lite, page 16", 64, 16, 4096, 16),
    LatentDecodeCase("deepseek-v2-lite, page 128", 64, 16, 4096, 128),
    LatentDecodeCase("glm-4-moe-lite, 64 rows, 4k", 64, 20, 4096),
    LatentRaggedCase("deepseek-v3, prompt of 2k", ((2048, 0),), 128),
    LatentRaggedCase("deepseek-v3, prompt of 16k", ((16384, 0),), 128),
    LatentRaggedCase("deepseek-v3, 128 after 30k", ((128, 30720),), 128),
    LatentRaggedCase("deepseek-v3, 8 x 4 to verify", ((4, 4000),) * 8, 128),
    LatentRaggedCase("deepseek-v3, 63 decode rows", ((1, 4000),) * 63 + ((128, 0),), 128),
    LatentRaggedCase("deepseek-v3 of 8, 2k after 14k", ((2048, 14336),), 16),
    LatentRaggedCase("kimi-k2 of 8, prompt of 2k", ((2048, 0),), 8),
    LatentRaggedCase("deepseek-v2-lite, page 16", ((2048, 0),), 16, 16),
    LatentRaggedCase("glm-4-moe-lite, prompt of 2k", ((2048, 0),), 20),
)
