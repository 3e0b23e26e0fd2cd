"""Shapes of latent attention that people run."""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from pallas_kernels.case import Case, Tiling
from pallas_kernels.mla.mla_decode import mla_decode
from pallas_kernels.mla.reference import mla_reference


@dataclass(frozen=True)
class MLACase(Case):
    """A decode step's latent attention in one layer: B rows of `keys` latents, N heads."""

    kernel: ClassVar[str] = "mla_decode"
    tolerance: ClassVar[float] = 0.01

    B: int
    N: int
    keys: int
    S: int = 64
    H: int = 576
    V: int = 512

    def make(self, key: Array) -> tuple[Array, ...]:
        keys = jax.random.split(key, 3)
        width = -(-self.keys // self.S)
        normal = partial(jax.random.normal, dtype=jnp.bfloat16)
        table = 1 + jax.random.permutation(keys[2], self.B * width).reshape(self.B, width)
        return (
            normal(keys[0], (self.B, self.N, self.H)),
            normal(keys[1], (self.B * width + 1, self.S, self.H)),
            table.astype(jnp.int32),
            jnp.full(self.B, self.keys - 1, jnp.int32),
        )

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
        options = {"scale": 192**-0.5, "value_dim": self.V}
        if tiling is None and not interpret:
            return mla_decode(q, pages, page_table, positions, **options)
        from pallas_kernels.attention.mosaic_decode import mosaic_decode

        options |= tiling or {"splits": 2}
        return mosaic_decode(
            q, pages[:, None], None, page_table, positions, interpret=interpret, **options
        )

    def reference(
        self,
        q: Float[Array, "B N H"],
        pages: Float[Array, "P S H"],
        page_table: Int32[Array, "B MP"],
        positions: Int32[Array, " B"],
    ) -> Float[Array, "B N V"]:
        rows = jnp.arange(self.B, dtype=jnp.int32)
        return mla_reference(
            q, pages, page_table, rows, positions, scale=192**-0.5, value_dim=self.V
        )

    def small(self) -> "MLACase":
        return replace(self, B=2, N=min(self.N, 40), keys=self.S + 3, H=192, V=128)

    @property
    def bytes_moved(self) -> int:
        """Every latent once, queries and results; 16 bits each."""
        return 2 * self.B * (self.keys * self.H + self.N * (self.H + self.V))

    @property
    def flops(self) -> int:
        return 2 * self.B * self.N * self.keys * (self.H + self.V)

    def facts(self) -> dict[str, int]:
        from pallas_kernels.attention.mosaic_decode import columns

        blocks = self.B * -(-self.N // columns(self.N, self.V))
        return {"blocks": blocks, "keys": self.keys, "H": self.H, "S": self.S}

    def tilings(self) -> tuple[Tiling, ...]:
        from pallas_kernels.attention.mosaic_decode import SPLITS, TILE

        return tuple({"splits": n} for n in SPLITS if n * TILE <= self.keys)


CASES: tuple[Case, ...] = (
    MLACase("deepseek-v3, 64 rows", 64, 128, 4096),
    MLACase("deepseek-v3, 1 of 8 devices, 64 rows", 64, 16, 4096),
    MLACase("deepseek-v3, one row, 64k", 1, 128, 65536),
    MLACase("deepseek-v2-lite, page 16, 64 rows", 64, 16, 4096, 16),
)
