"""Rotary position embeddings: the frequencies under every scaling; `rotate` is a kernel's.

Owns one class for each way to let a model read further than it was trained. How config.json spells
them is `config/rope.py`'s. Knows nothing of attention or caches.

Frequencies are fixed for a model that is run with a context of C tokens. Dynamic and LongRoPE,
whose authors choose them by the length of the sequence at hand, use those of a sequence that fills
the context: so keys in pages stay valid while it grows, and equal prompts have equal keys.

    LongRoPE   C <= trained   short factors, as transformers for all these sequences
               C > trained    long factors, as transformers for sequences longer than `trained`
    Dynamic    C <= trained   no scaling, as transformers for all these sequences
               C > trained    the base of a sequence of C tokens

Source: RoFormer, arXiv 2104.09864; each scaling names its own.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

from pallas_kernels import rotate as rotate

Pairs = Float32[np.ndarray, " pairs"]  # a number for each of the R / 2 rotated pairs of a head
Rotation = tuple[Float32[Array, "T pairs"], Float32[Array, "T pairs"]]  # cosines and sines


def tokens_a_radian(dim: int, theta: float) -> Pairs:
    """theta ^ (2 i / R) for pair i, in float32, as every implementation has it."""
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    tokens: Pairs = np.float32(theta) ** exponents
    return tokens


@dataclass(frozen=True)
class Unscaled:
    """RoPE as it was first described."""

    magnitude: float = 1.0  # that of rotated vectors, over that of the plain ones

    def frequencies(self, dim: int, theta: float, context: int) -> Pairs:
        return 1 / tokens_a_radian(dim, theta)


@dataclass(frozen=True)
class Linear:
    """Positions are divided by `factor`. Source: position interpolation, arXiv 2306.15595."""

    factor: float
    magnitude: float = 1.0

    def frequencies(self, dim: int, theta: float, context: int) -> Pairs:
        return 1 / tokens_a_radian(dim, theta) / np.float32(self.factor)


@dataclass(frozen=True)
class Proportional:
    """The first `turned` pairs of a head turn, at the pace that they have where all do.

    Source: Gemma 4's published model code.
    """

    turned: int
    factor: float = 1.0
    magnitude: float = 1.0

    def frequencies(self, dim: int, theta: float, context: int) -> Pairs:
        turning = 1 / tokens_a_radian(dim, theta) / np.float32(self.factor)
        return np.where(np.arange(dim // 2) < self.turned, turning, np.float32(0))


@dataclass(frozen=True)
class Dynamic:
    """The base grows with the context. Source: NTK-aware scaling, arXiv 2309.00071, 3.1 and 3.3."""

    factor: float
    trained: int  # tokens of context up to which nothing is scaled
    magnitude: float = 1.0

    def frequencies(self, dim: int, theta: float, context: int) -> Pairs:
        stretch = self.factor * max(context, self.trained) / self.trained - (self.factor - 1)
        return 1 / tokens_a_radian(dim, theta * stretch ** (dim / (dim - 2)))


@dataclass(frozen=True)
class Stretched:
    """The base grows by a power of `alpha`. Source: NTK-aware scaling, arXiv 2309.00071, 3.1."""

    alpha: float
    magnitude: float = 1.0

    def frequencies(self, dim: int, theta: float, context: int) -> Pairs:
        return 1 / tokens_a_radian(dim, theta * self.alpha ** (dim / (dim - 2)))


@dataclass(frozen=True)
class Yarn:
    """Slow pairs are interpolated, fast ones kept. Source: arXiv 2309.00071, 3.2 and 3.4."""

    factor: float
    trained: int
    fast: float  # turns within the trained context from which a pair is kept
    slow: float  # turns up to which it is interpolated; between them lies a ramp over the pairs
    truncate: bool  # the ramp begins and ends at whole pairs
    magnitude: float

    def frequencies(self, dim: int, theta: float, context: int) -> Pairs:
        low, high = self._pair(self.fast, dim, theta), self._pair(self.slow, dim, theta)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, dim - 1)
        width = high - low if high != low else 0.001
        pair = np.arange(dim // 2, dtype=np.float32)
        slowness = np.clip((pair - np.float32(low)) / np.float32(width), 0, 1)
        tokens = tokens_a_radian(dim, theta)
        mixed: Pairs = slowness / (np.float32(self.factor) * tokens) + (1 - slowness) / tokens
        return mixed

    def _pair(self, turns: float, dim: int, theta: float) -> float:
        """The pair that turns so often within the trained context, not rounded."""
        return dim * math.log(self.trained / (turns * 2 * math.pi)) / (2 * math.log(theta))


@dataclass(frozen=True)
class Llama3:
    """As YaRN, but the ramp is one over turns. Source: Llama 3.1's published model code."""

    factor: float
    trained: int
    fast: float
    slow: float
    magnitude: float = 1.0

    def frequencies(self, dim: int, theta: float, context: int) -> Pairs:
        plain = 1 / tokens_a_radian(dim, theta)
        turns = np.float32(self.trained) * plain / np.float32(2 * math.pi)
        quickness = np.clip((turns - self.slow) / np.float32(self.fast - self.slow), 0, 1)
        mixed: Pairs = (1 - quickness) * plain / np.float32(self.factor) + quickness * plain
        return mixed


@dataclass(frozen=True)
class LongRope:
    """Each pair has one divisor for short and one for long contexts. Source: arXiv 2402.13753."""

    short: tuple[float, ...]
    long: tuple[float, ...]
    trained: int
    magnitude: float

    def frequencies(self, dim: int, theta: float, context: int) -> Pairs:
        divisors = self.long if context > self.trained else self.short
        scaled: Pairs = 1 / (np.asarray(divisors, np.float32) * tokens_a_radian(dim, theta))
        return scaled


Scaling = Unscaled | Linear | Proportional | Dynamic | Stretched | Yarn | Llama3 | LongRope


@dataclass(frozen=True)
class RopeConfig:
    """How the first `dim` dimensions (R <= H, even) of each query and key are rotated."""

    dim: int
    theta: float = 10_000.0
    scaling: Scaling = Unscaled()


def rotation(rope: RopeConfig, positions: Int32[Array, " T"], context: int) -> Rotation:
    """Cosines and sines of all tokens of a step, for a model run with `context` tokens."""
    frequencies = rope.scaling.frequencies(rope.dim, rope.theta, context)
    angles = positions[:, None].astype(jnp.float32) * frequencies  # [T, pairs]
    return jnp.cos(angles) * rope.scaling.magnitude, jnp.sin(angles) * rope.scaling.magnitude
