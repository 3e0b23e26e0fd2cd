"""Shapes of mixtures of experts that people run."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pallas_kernels.case import Case, Tiling
from pallas_kernels.moe.activations import num_parts
from pallas_kernels.moe.experts import experts
from pallas_kernels.moe.formats import (
    FORMATS,
    MX_BIAS,
    Fp8Experts,
    Int4Experts,
    Int8Experts,
    Mxfp4Experts,
    dequantize,
)
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
    stored: str = "bf16"  # a name of _STORED
    devices: int = 1  # that divide devices x E experts; this is the first

    def make(self, key: Array) -> tuple[Array, ...]:
        """Tokens, weights and choices of the routing, gate-up and down, then biases."""
        keys = jax.random.split(key, 6)
        E, D, F, C = self.E, self.D, self.F, num_parts(self.activation) * self.F
        normal = partial(jax.random.normal, dtype=jnp.bfloat16)
        weights, chosen = route(jax.random.normal(keys[0], (self.T, E * self.devices)), self.k)
        biases = (normal(keys[4], (E, C)), normal(keys[5], (E, D))) if self.biased else ()
        gate_up, down = self._matrices(keys[2], D, C), self._matrices(keys[3], F, D)
        return normal(keys[1], (self.T, D)), weights, chosen, *gate_up, *down, *biases

    def _matrices(self, key: Array, A: int, C: int) -> tuple[Array, ...]:
        """[A, C] of each expert; words and scales where they are packed."""
        kind, group = _STORED[self.stored]
        if kind is None:
            return (jax.random.normal(key, (self.E, A, C), jnp.bfloat16) * jnp.bfloat16(A**-0.5),)
        bits, scale = jax.random.split(key)
        words = jax.random.bits(bits, (self.E, C, A * FORMATS[kind].bits // 16), jnp.uint16)
        shape = (self.E, A // (group or A), C)
        if kind is Mxfp4Experts:
            return words, jax.random.randint(scale, shape, MX_BIAS - 9, MX_BIAS - 5, jnp.uint8)
        if kind is Fp8Experts:
            words &= 0xBFBF  # no NaN
        return words, jax.random.uniform(scale, shape) * (A**-0.5 * _USUAL[kind])

    def run(
        self, *arrays: Array, tiling: Tiling | None = None, interpret: bool = False
    ) -> Float[Array, "T D"]:
        *fixed, biases = self._arguments(arrays)
        run: Any = partial(experts, activation=self.activation, interpret=interpret, **biases)
        return jnp.asarray(run(*fixed, **dict(tiling or {})))

    def _arguments(self, arrays: tuple[Array, ...]) -> tuple[Any, ...]:
        """Those of `experts`, with the biases by name."""
        kind, _ = _STORED[self.stored]
        x, weights, chosen, *rest = arrays
        if kind is None:
            gate_up, down, *biases = rest
        else:
            gate_up, down, biases = kind(*rest[:2]), kind(*rest[2:4]), rest[4:]
        named = dict(zip(("gate_up_bias", "down_bias"), biases, strict=False))
        return x, weights, chosen, gate_up, down, named

    def reference(self, *arrays: Array) -> Float[Array, "T D"]:
        """In pieces: the specification runs every expert on every token."""
        x, weights, chosen, *matrices, biases = self._arguments(arrays)
        if self.stored != "bf16":
            matrices = [dequantize(weight) for weight in matrices]
        run: Any = partial(experts_reference, activation=self.activation, **biases)
        pieces = [slice(i, i + _PIECE) for i in range(0, self.T, _PIECE)]
        return jnp.concatenate([run(x[p], weights[p], chosen[p], *matrices) for p in pieces])

    def small(self) -> "ExpertsCase":
        plain = self.stored == "bf16"
        T, F = 33 if plain and self.T > 32 else 5, 64 if plain else 128
        devices = min(self.devices, 2)
        return replace(self, name=self.stored, T=T, E=4, k=2, D=128, F=F, devices=devices)

    @property
    def active(self) -> float:
        """Experts that some token chose, of an even routing."""
        return self.E * (1 - (1 - self.k / (self.E * self.devices)) ** self.T)

    @property
    def bytes_moved(self) -> int:
        """The weights of active experts as they are stored, tokens in and out in 16 bits."""
        kind, group = _STORED[self.stored]
        bits = 16 if kind is None else FORMATS[kind].bits
        scale = 0 if group == 0 else 8 / group if kind is Mxfp4Experts else 32 / group
        weights = self.active * self._products * self.D * self.F
        return int(weights * (bits + scale) / 8 + 4 * self.T * self.D)

    @property
    def flops(self) -> int:
        return 2 * self._products * self.T * self.k * self.D * self.F // self.devices

    @property
    def _products(self) -> int:
        """Of D by F: gate, up and down, or up and down."""
        return num_parts(self.activation) + 1

    def tilings(self) -> tuple[Tiling, ...]:
        """None for a few tokens, which are not sorted."""
        most = 128 if self.stored == "bf16" else 64
        return tuple({"tile": n} for n in (8, 16, 32, 64, 128) if self.T > 32 and n <= most)

    def facts(self) -> dict[str, int]:
        kind, _ = _STORED[self.stored]
        bits = 16 if kind is None else FORMATS[kind].bits
        return {"choices": self.T * self.k, "E": self.E, "D": self.D, "F": self.F, "bits": bits}


# how weights are stored, and rows that share a scale; 0 for all
_STORED: dict[str, tuple[Any, int]] = {
    "bf16": (None, 0),
    "fp8": (Fp8Experts, 0),
    "fp8 blocks": (Fp8Experts, 128),
    "int8": (Int8Experts, 0),
    "int4": (Int4Experts, 128),
    "int4, groups of 64": (Int4Experts, 64),
    "mxfp4": (Mxfp4Experts, 32),
}
_USUAL = {Fp8Experts: 2.0, Int8Experts: 1 / 64, Int4Experts: 1 / 4}  # 1 / a number of these
_PIECE = 16  # tokens
_QWEN3, _MIXTRAL, _GPT_OSS = (128, 8, 2048, 768), (8, 2, 4096, 14336), (32, 4, 2880, 2880)

_OSS = (*_GPT_OSS, "clamped_swiglu", True)
_DEEPSEEK = (32, 8, 7168, 2048, "silu", False)
_NEMOTRON = (128, 6, 2688, 1856, "relu2")


def _cases(name: str, sizes: tuple[Any, ...], tokens: tuple[int, ...], **more: Any) -> list[Case]:
    """One for each number of tokens."""
    rows = {1: "one row", 2048: "2k tokens", 8192: "8k tokens"}
    return [ExpertsCase(f"{name}, {rows.get(T, f'{T} rows')}", T, *sizes, **more) for T in tokens]


CASES: tuple[Case, ...] = (
    *_cases("qwen3-30b-a3b", _QWEN3, (1, 8, 64, 2048, 8192)),
    *_cases("qwen3-30b-a3b fp8", _QWEN3, (1, 64, 2048), stored="fp8 blocks"),
    *_cases("qwen3-30b-a3b fp8 columns", _QWEN3, (8,), stored="fp8"),
    *_cases("qwen3-30b-a3b int8", _QWEN3, (8, 64), stored="int8"),
    *_cases("qwen3-30b-a3b int4", _QWEN3, (8, 64, 2048), stored="int4"),
    *_cases("mixtral-8x7b int4-64", _MIXTRAL, (8,), stored="int4, groups of 64"),
    *_cases("gpt-oss-20b", _OSS, (64, 2048)),
    *_cases("gpt-oss-20b mxfp4", _OSS, (1, 8, 64, 2048, 8192), stored="mxfp4"),
    *_cases("deepseek-v3, 1 of 8, fp8", _DEEPSEEK, (8, 64, 2048), stored="fp8 blocks", devices=8),
    *_cases("mixtral-8x7b", _MIXTRAL, (1, 8, 64, 2048)),
    *_cases("nemotron-3-nano", _NEMOTRON, (8, 64, 2048)),
    *_cases("nemotron-3-nano fp8", _NEMOTRON, (8, 64), stored="fp8"),
)
