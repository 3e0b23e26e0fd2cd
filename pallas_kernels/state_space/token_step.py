"""One token of each row, all rows and heads side by side: a decode step's scan, left to XLA.

    state [Z, N, V, S] ── slot, head of each ──> h [B N, V, S] ── decay, write ──┬──> state
                                                                                 └─ read ─> y

On a CPU XLA makes of this one loop over the states, one product and one loop that puts them back,
if rows and heads are one axis: with two, each of those who read the new states computes them anew.
"""

import math
from functools import partial

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32, Int32

from pallas_kernels.state_space.rows import ScanRows

_TERMS = [math.log(2) ** n / math.factorial(n) for n in range(8)]  # of 2^x: 7e-9 off at 1/2
_LEAST = -126.0  # exponent of the smallest number that is not subnormal


def scan_side_by_side(
    state: Float32[Array, "Z N V S"],
    values: Float[Array, "B N V"],
    keys: Float[Array, "B J S"],
    queries: Float[Array, "B J S"],
    rates: Float32[Array, "B N W"],
    rows: ScanRows,
    *,
    matrix: Float32[Array, "N V S"] | None = None,
    beta: Float32[Array, "B N"] | None = None,
) -> tuple[Float[Array, "B N V"], Float32[Array, "Z N V S"]]:
    """`ssm_scan` where row b has token b or none."""
    N = state.shape[1]
    fresh = jnp.repeat(rows.fresh, N)[:, None, None]
    h = jnp.where(fresh, 0.0, state[_places(rows.read_slots, N)])
    h, y = token_step(h, values, keys, queries, rates, matrix, beta)
    put = partial(_put, h)
    state = put(state, rows.length, rows.slots)
    if rows.snapshots is not None:  # the same, for they are behind the one token
        state = put(state, *rows.snapshots)
    return y.astype(values.dtype), state


def token_step(
    h: Float[Array, "BN V S"],
    v: Float[Array, "B N V"],
    k: Float[Array, "B J S"],
    q: Float[Array, "B J S"],
    rate: Float[Array, "B N W"],
    matrix: Float[Array, "N V S"] | None = None,
    beta: Float[Array, "B N"] | None = None,
) -> tuple[Float[Array, "BN V S"], Float[Array, "B N V"]]:
    """The heads' states after a token of each row, and what these read from them."""
    groups = v.shape[1] // k.shape[1]
    k, q = (jnp.repeat(x, groups, axis=1).reshape(len(h), -1).astype(h.dtype) for x in (k, q))
    wide = v.astype(h.dtype).reshape(len(h), -1)
    if matrix is None:
        h = h * jnp.exp(rate).reshape(len(h), 1, -1)
    else:
        h = h * _forgotten(rate[..., None], matrix).reshape(h.shape)
    if beta is not None:
        wide = beta.reshape(-1, 1) * (wide - jnp.einsum("nvs,ns->nv", h, k))
    h = h + wide[..., None] * k[:, None, :]
    return h, jnp.einsum("nvs,ns->nv", h, q).reshape(v.shape)


def _forgotten(
    rate: Float32[Array, "B N V 1"], matrix: Float32[Array, "N V S"]
) -> Float32[Array, "B N V S"]:
    """exp(rate matrix), of which there is one for each number of a state, for products up to 0.

    XLA's exponential took four times as long as all else that is done to a state (a core of an
    EPYC, JAX 0.11.2): 2^x by its whole and its broken part does not.
    """
    x = jnp.maximum((rate * math.log2(math.e)) * matrix, _LEAST)
    whole = lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN)
    broken, power = x - whole, jnp.float32(_TERMS[-1])
    for term in _TERMS[-2::-1]:
        power = power * broken + jnp.float32(term)
    exponent = whole.astype(jnp.int32) << 23
    return lax.bitcast_convert_type(lax.bitcast_convert_type(power, jnp.int32) + exponent, x.dtype)


def _places(slots: Int32[Array, " B"], N: int) -> tuple[Int32[Array, " BN"], Int32[Array, " BN"]]:
    """Slot and head of each head of each row."""
    return jnp.repeat(slots, N), jnp.tile(jnp.arange(N, dtype=jnp.int32), len(slots))


def _put(
    h: Float32[Array, "BN V S"],
    state: Float32[Array, "Z N V S"],
    after: Int32[Array, " B"],
    slots: Int32[Array, " B"],
) -> Float32[Array, "Z N V S"]:
    """The pool with these states in the slots of rows where `after` is not 0."""
    places = _places(jnp.where(after > 0, slots, state.shape[0]), state.shape[1])
    return state.at[places].set(h, mode="drop")
