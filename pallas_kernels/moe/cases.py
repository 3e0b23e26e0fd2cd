"""Shapes of mixtures of experts that people run."""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pallas_kernels.case import Case, Tiling
from pallas_kernels.moe.experts import experts
from pallas_kernels.moe.reference import experts_reference
from pallas_kernels.moe.routing import route


@dataclass(frozen=True)
class ExpertsCase(Case):
    """The experts of one layer on T tokens, each of which chose k of E."""

    kernel: ClassVar[str] = "experts"
    tolerance: ClassVar[float] = 0.01

    T: int
    E: int
    k: int
    D: int
    F: int
    activation: str = "silu"
    biased: bool = False

    def make(self, key: Array) -> tuple[Array, ...]:
        """Tokens, weights and choices of the routing, gate-up and down, then biases."""
        keys = jax.random.split(key, 6)
        E, D, F = self.E, self.D, self.F
        normal = partial(jax.random.normal, dtype=jnp.bfloat16)
        weights, chosen = route(jax.random.normal(keys[0], (self.T, E)), self.k)
        biases = (normal(keys[4], (E, 2 * F)), normal(keys[5], (E, D))) if self.biased else ()
        return (
            normal(keys[1], (self.T, D)),
            weights,
            chosen,
            normal(keys[2], (E, D, 2 * F)) * jnp.bfloat16(D**-0.5),
            normal(keys[3], (E, F, D)) * jnp.bfloat16(F**-0.5),
            *biases,
        )

    def run(
        self, *arrays: Array, tiling: Tiling | None = None, interpret: bool = False
    ) -> Float[Array, "T D"]:
        return experts(
            *arrays[:5], activation=self.activation, interpret=interpret,
            **dict(tiling or {}), **self._biases(arrays),
        )  # fmt: skip

    def reference(self, *arrays: Array) -> Float[Array, "T D"]:
        """In pieces: the specification runs every expert on every token."""
        x, weights, chosen, *rest = arrays[:5]
        run = partial(experts_reference, activation=self.activation, **self._biases(arrays))
        pieces = [slice(i, i + _PIECE) for i in range(0, self.T, _PIECE)]
        return jnp.concatenate([run(x[p], weights[p], chosen[p], *rest) for p in pieces])

    def small(self) -> "ExpertsCase":
        return replace(self, T=min(self.T, 9), E=4, k=2, D=128, F=64)

    @property
    def active(self) -> float:
        """Experts that some token chose, of an even routing."""
        return self.E * (1 - (1 - self.k / self.E) ** self.T)

    @property
    def bytes_moved(self) -> int:
        """The weights of active experts, tokens in and out, in 16 bits."""
        return int(2 * (self.active * 3 * self.D * self.F + 2 * self.T * self.D))

    @property
    def flops(self) -> int:
        return 6 * self.T * self.k * self.D * self.F

    def tilings(self) -> tuple[Tiling, ...]:
        return tuple({"tile": size} for size in (8, 16, 32, 64, 128))

    def facts(self) -> dict[str, int]:
        return {"choices": self.T * self.k, "E": self.E, "D": self.D, "F": self.F}

    def _biases(self, arrays: tuple[Array, ...]) -> dict[str, Array]:
        return dict(zip(("gate_up_bias", "down_bias"), arrays[5:], strict=False))


_PIECE = 16  # tokens
_QWEN3, _MIXTRAL, _GPT_OSS = (128, 8, 2048, 768), (8, 2, 4096, 14336), (32, 4, 2880, 2880)

CASES: tuple[Case, ...] = (
    ExpertsCase("qwen3-30b-a3b, one row", 1, *_QWEN3),
    ExpertsCase("qwen3-30b-a3b, 64 rows", 64, *_QWEN3),
    ExpertsCase("qwen3-30b-a3b, 2k tokens", 2048, *_QWEN3),
    ExpertsCase("qwen3-30b-a3b, 8k tokens", 8192, *_QWEN3),
    ExpertsCase("mixtral-8x7b, 64 rows", 64, *_MIXTRAL),
    ExpertsCase("gpt-oss-20b, 64 rows", 64, *_GPT_OSS, "clamped_swiglu", True),
    ExpertsCase("deepseek-v3, 1 of 32 devices, 64 rows", 64, 8, 8, 7168, 2048),
)
