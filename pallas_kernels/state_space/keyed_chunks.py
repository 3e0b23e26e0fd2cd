"""The delta rule whose state forgets by key entry, a chunk of one row's tokens at a time.

As `chunked.py`, but the decay D[t, s] is a vector over the S entries of keys, so that no product of
queries and keys is without it. It is formed entry by entry, C by C by S numbers a head, of which
none is above 1: quotients of it would grow without bound. Source: Kimi Linear, arXiv 2510.26692.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from pallas_kernels.state_space.chunked import LEAST_RATE, by_head, unit_inverse


def keyed_chunk_step(
    state: Float[Array, "N V S"],
    values: Float[Array, "C N V"],
    keys: Float[Array, "C J S"],
    queries: Float[Array, "C J S"],
    rates: Float[Array, "C N S"],
    beta: Float[Array, "C N"],
    live: Bool[Array, " C"],
) -> tuple[Float[Array, "N V S"], Float[Array, "C N V"]]:
    """The state after the chunk's live tokens, and every live token's output; as `chunk_step`."""
    C, N = values.shape[:2]
    k, q = (
        jnp.repeat(by_head(x, live, state.dtype), N // x.shape[1], axis=0) for x in (keys, queries)
    )  # [N, C, S]
    v, b = by_head(values, live, state.dtype), by_head(beta, live, state.dtype)[..., None]
    total = jnp.cumsum(by_head(jnp.maximum(rates, LEAST_RATE), live, state.dtype), axis=1)
    since_start = jnp.exp(total)  # [N, C, S]
    seen = np.tri(C, dtype=bool)[..., None]
    decay = jnp.exp(jnp.where(seen, total[:, :, None] - total[:, None], -jnp.inf))  # [N, C, C, S]
    decayed = decay * k[:, None]
    earlier = jnp.where(np.tri(C, k=-1, dtype=bool), jnp.einsum("ntus,nts->ntu", decayed, k), 0)
    v = v - jnp.einsum("ncs,nvs->ncv", since_start * k, state)
    v = unit_inverse(b * earlier) @ (b * v)
    y = jnp.einsum("ncs,nvs->ncv", since_start * q, state)
    y += jnp.einsum("ntus,nts->ntu", decayed, q) @ v
    to_end = jnp.exp(total[:, -1:] - total) * k
    h = since_start[:, -1:] * state + jnp.einsum("ncv,ncs->nvs", v, to_end)
    return h, jnp.moveaxis(y, 1, 0)
