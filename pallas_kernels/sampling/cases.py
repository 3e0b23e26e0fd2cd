"""Vocabularies and options that people draw tokens with."""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from pallas_kernels.case import Case, Tiling
from pallas_kernels.sampling.draw import draw
from pallas_kernels.sampling.reference import draw_reference
from pallas_kernels.sampling.rows import COUNT_BITS, DrawRows, pack_rows, unpack_rows

Kind = Literal["greedy", "temperature", "top-k top-p", "top-p", "penalties"]


@dataclass(frozen=True)
class DrawCase(Case):
    """One step's choice of B tokens, all rows with the same options."""

    kernel: ClassVar[str] = "draw"
    tolerance: ClassVar[float] = 0.0

    kind: Kind
    B: int
    V: int

    def make(self, key: Array) -> tuple[Array, ...]:
        """Logits, counts and options; logits have the spread that models give them."""
        keys = jax.random.split(key, 4)
        logits = 3 * jax.random.normal(keys[0], (self.B, self.V), jnp.float32)
        seen = jax.random.randint(keys[1], (self.B + 1, self.V), 0, 64)
        counts = jnp.where(seen < 3, seen + ((seen == 0) << COUNT_BITS), 0)
        return logits, counts.astype(jnp.int32), pack_rows(self._rows(*keys[2:]))

    def run(
        self, *arrays: Array, tiling: Tiling | None = None, interpret: bool = False
    ) -> Int32[Array, " B"]:
        logits, counts, packed = arrays
        choose = draw
        if interpret:
            from pallas_kernels.sampling.mosaic_draw import mosaic_draw

            choose = partial(mosaic_draw, blocks=2, chunk=2, interpret=True)
        return choose(logits, counts, unpack_rows(packed))

    def reference(self, *arrays: Array) -> Int32[Array, " B"]:
        logits, counts, packed = arrays
        return draw_reference(logits, counts, unpack_rows(packed.astype(jnp.int32)))

    def small(self) -> "DrawCase":
        return replace(self, name=self.kind, B=2, V=1024)

    @property
    def bytes_moved(self) -> int:
        """Logits, and counts where they are wanted."""
        return 4 * self.B * self.V * (2 if self.kind == "penalties" else 1)

    @property
    def flops(self) -> int:
        """It has no products."""
        return 0

    def _rows(self, seeds: Array, positions: Array) -> DrawRows:
        def whole(number: float) -> Float[Array, " B"]:
            return jnp.full(self.B, number, jnp.float32)

        words = jax.random.bits(seeds, (2, self.B))
        penalised = self.kind == "penalties"
        return DrawRows(
            temperature=whole(0.0 if self.kind == "greedy" else 0.8),
            top_p=whole(0.95 if "top-p" in self.kind else 1.0),
            min_p=whole(0.0),
            presence=whole(0.5 * penalised),
            frequency=whole(0.25 * penalised),
            repetition=whole(1.1 if penalised else 1.0),
            top_k=jnp.full(self.B, 20 if "top-k" in self.kind else 0, jnp.int32),
            slot=1 + jnp.arange(self.B, dtype=jnp.int32),
            position=jax.random.randint(positions, (self.B,), 1, 4096),
            seed_high=words[0],
            seed_low=words[1],
        )


CASES: tuple[Case, ...] = (
    DrawCase("llama-3.1-8b, greedy, 64 rows", "greedy", 64, 128256),
    DrawCase("llama-3.1-8b, 64 rows", "temperature", 64, 128256),
    DrawCase("llama-3.1-8b, 1 row", "temperature", 1, 128256),
    DrawCase("llama-3.1-8b, top-p, 64 rows", "top-p", 64, 128256),
    DrawCase("qwen3-8b, top-k top-p, 64 rows", "top-k top-p", 64, 151936),
    DrawCase("qwen3-8b, top-k top-p, 1 row", "top-k top-p", 1, 151936),
    DrawCase("gemma-3-27b, 256 rows", "top-k top-p", 256, 262208),
    DrawCase("mistral-7b, penalties, 64 rows", "penalties", 64, 32768),
)
