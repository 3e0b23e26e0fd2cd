"""Random weights that are the same bytes on every machine and with every version of NumPy.

Owns the numbers only. Each tensor has a stream of its own, seeded by the case's seed and the
tensor's name; a value is the sum of four 16-bit integers out of PCG64's raw words (which NumPy
promises to keep, unlike its distributions), so no logarithm or cosine of the platform enters.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np

# Four uniform integers in [0, 65536): mean 4 * 32767.5, variance 4 * (65536**2 - 1) / 12
MEAN = 4 * 32767.5
DEVIATION = math.sqrt(4 * (65536**2 - 1) / 12)

FACTORS = ("weight", "layer_scalar", "router.scale", "per_expert_scale")  # vectors that multiply
CONSTANTS = {"beta": 0.5, "eps": -1e-6}  # of xIELU, which checkpoints hold and models do not read


def normal(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float64 values of mean 0 and variance 1, close to normal, of `shape`."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    words = np.random.PCG64(int.from_bytes(digest[:16], "little")).random_raw(math.prod(shape))
    halves = sum((words >> np.uint64(16 * i)) & np.uint64(0xFFFF) for i in range(4))
    return ((halves.astype(np.float64) - MEAN) / DEVIATION).reshape(shape)


@dataclass(frozen=True)
class Spread:
    """How the weights of a model are spread, so that its logits vary and depend on every layer."""

    norm: float = 1.0  # the norms' scales lie around this; 0 where the model adds one to them
    gain: float = 1.3  # a product's deviation over that of what was multiplied
    embedding: float = 0.5  # deviation of embeddings and heads; small where one matrix is both


def tensor(seed: int, name: str, shape: tuple[int, ...], spread: Spread) -> np.ndarray:
    """One float32 tensor of a model; a vector is factors, of norms and others, or else a bias."""
    if not shape:
        return np.array(CONSTANTS[name.rsplit(".", 1)[-1]], np.float32)
    values = normal(seed, name, shape)
    if len(shape) == 1:
        values = values * 0.2 + (spread.norm if name.endswith(FACTORS) else 0.0)
    elif "embed" in name or "wte" in name or "wpe" in name or "lm_head" in name:
        values = values * spread.embedding
    else:
        values = values * spread.gain / math.sqrt(shape[-1])
    return values.astype(np.float32)
