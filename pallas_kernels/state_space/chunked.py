"""The scan of one row, a chunk of its tokens at a time, as matrix products.

The CPU's version of Mamba-2 and of the gated delta rule, and the algorithm of the tensor cores'.

A chunk has C tokens. G[t] is the sum of the rates up to its token t; what token s < t has written
has decayed by D[t, s] = exp(G[t] - G[s]) when t reads it, and the state h before the chunk by
exp(G[t]). With Q, K [C, S] and V [C, V]:

    U = V                                                 Mamba-2
    U = (I + A)^-1 beta (V - exp(G) K h^T)                delta rule, A = beta D (K K^T), s < t
    Y = exp(G) Q h^T + (D (Q K^T), s <= t) U
    h = exp(G[C]) h + (exp(G[C] - G) U)^T K

Sources: state space duality (arXiv:2405.21060), gated DeltaNet (arXiv:2412.06464).
"""

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

CHUNK = 32  # tokens; on CPUs faster than 64 for the delta rule, about equal for Mamba-2
LEAST_RATE = -40.0  # e^-40 forgets all; smaller ones would drown the other rates of a chunk


def chunk_step(
    state: Float[Array, "N V S"],
    values: Float[Array, "C N V"],
    keys: Float[Array, "C J S"],
    queries: Float[Array, "C J S"],
    rates: Float[Array, "C N"],
    beta: Float[Array, "C N"] | None,
    live: Bool[Array, " C"],
) -> tuple[Float[Array, "N V S"], Float[Array, "C N V"]]:
    """The state after the chunk's live tokens, and every live token's output; C a power of two.

    Tokens that are not live are another row's, or nobody's; they may hold NaN.
    """
    (C, N, V), (J, S), wide = values.shape, keys.shape[1:], state.dtype
    h = state.reshape(J, N // J, V, S)
    k, q = (by_head(x, live, wide) for x in (keys, queries))  # [J, C, S]
    v = by_head(values, live, wide).reshape(J, -1, C, V)
    g = by_head(jnp.maximum(rates, LEAST_RATE), live, wide).reshape(J, -1, C)
    total = jnp.cumsum(g, axis=-1)
    since_start = jnp.exp(total)[..., None]  # [J, G, C, 1]
    seen = np.tri(C, dtype=bool)
    decay = jnp.exp(jnp.where(seen, total[..., :, None] - total[..., None, :], -jnp.inf))
    if beta is not None:
        b = by_head(beta, live, wide).reshape(J, -1, C, 1)
        earlier = jnp.where(np.tri(C, k=-1, dtype=bool), b * decay, 0)
        inverse = unit_inverse(earlier * jnp.einsum("jts,jus->jtu", k, k)[:, None])
        v = v - since_start * jnp.einsum("jcs,jgvs->jgcv", k, h)
        v = jnp.einsum("jgtu,jguv->jgtv", inverse, b * v)
    y = since_start * jnp.einsum("jcs,jgvs->jgcv", q, h)
    scores = decay * jnp.einsum("jts,jus->jtu", q, k)[:, None]
    y += jnp.einsum("jgtu,jguv->jgtv", scores, v)
    to_end = jnp.exp(total[..., -1:] - total)[..., None]
    h = since_start[..., -1:, :] * h + jnp.einsum("jgcv,jcs->jgvs", to_end * v, k)
    return h.reshape(N, V, S), jnp.moveaxis(y.reshape(N, C, V), 1, 0)


def unit_inverse(below: Float[Array, "*n C C"]) -> Float[Array, "*n C C"]:
    """(I + below)^-1 of a strictly lower triangular matrix, by doubling the blocks inverted.

    [a 0]^-1   [a^-1           0]         with X the inverse of the blocks on the diagonal, and M
    [m b]    = [-b^-1 m a^-1 b^-1]        those m below them:  X - X M X

    No power of the matrix is formed, which for keys that resemble each other would be huge.
    """
    C = below.shape[-1]
    inverse = jnp.eye(C, dtype=below.dtype) - jnp.where(lower_blocks(C, 1), below, 0)
    for size in (2**n for n in range(1, C.bit_length() - 1)):
        blocks = jnp.where(lower_blocks(C, size), below, 0)
        inverse -= inverse @ blocks @ inverse
    return inverse


def lower_blocks(C: int, size: int) -> np.ndarray:
    """Where the lower left quarters of the blocks of `2 * size` are, on the diagonal."""
    block = np.arange(C) // size
    lower: np.ndarray = (block[:, None] == block + 1) & (block[:, None] % 2 == 1)
    return lower


def by_head(x: Float[Array, "C n *s"], live: Bool[Array, " C"], dtype: DTypeLike) -> Array:
    """[n, C, *s] in `dtype`, zero where not live."""
    kept = jnp.where(live.reshape(-1, *[1] * (x.ndim - 1)), x, 0)
    return jnp.moveaxis(kept.astype(dtype), 0, 1)
