"""Which latents a token attends to: an index key a token, and queries that look for some of them.

    compressed query ─ q ─ rotated ─ queries [T, I, E]  ┐
    x ─ weights ──────────────────── [T, I] ────────────┴─> score of each key before the token
    x ─ k ─ norm ─ rotated ───────── key [T, E] ─> pages, at the place of the token's latent

Owns the projections; scores and choice are `pallas_kernels.mla`'s. Every device computes all of it,
for what is chosen holds for all heads. Published code also turns queries and keys by a Hadamard
matrix, which changes no product of the two: it is there for their rounding to 8 bits.
Source: DeepSeek-V3.2, arXiv 2512.02556, section 2.1.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from models.config.decoder import Latent, LatentIndex, ModelConfig
from models.layers.parts import LayerNorm, Linear
from models.layers.rope import Rotation, rotate
from pallas_kernels import IndexQueries

_EPS = 1e-6


class Indexer(nnx.Module):
    """I index queries and one index key of a token, of E numbers each."""

    def __init__(self, config: ModelConfig, latent: Latent, index: LatentIndex, dtype: DTypeLike):
        D, heads, E = config.hidden_size, index.heads, index.dim
        down, choice = ("embed", "latent"), ("embed", "choice")
        self.index = index
        self.q = Linear(latent.query_rank or D, heads * E, axes=down, bias=False, dtype=dtype)
        self.k = Linear(D, E, axes=down, bias=False, dtype=dtype)
        self.k_norm = LayerNorm(E, eps=_EPS)
        self.weights = Linear(D, heads, axes=choice, bias=False, dtype=jnp.float32)

    def __call__(
        self,
        x: Float[Array, "T D"],
        compressed: Float[Array, "T rank"],
        turn: Rotation | None,
    ) -> tuple[IndexQueries, Float[Array, "T E"]]:
        """What the tokens look for, and what is looked for in them."""
        heads, E = self.index.heads, self.index.dim
        q = self.q(compressed).reshape(-1, heads, E)
        k = self.k_norm(self.k(x))
        if turn is not None:
            q, k = rotate(q, turn), rotate(k[:, None], turn)[:, 0]
        weights = self.weights(x.astype(jnp.float32)) * (heads * E) ** -0.5
        return IndexQueries(q, weights), k
