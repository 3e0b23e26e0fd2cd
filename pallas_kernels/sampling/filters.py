"""Temperature, min-p, top-k and top-p for XLA: from logits to those of tokens that may be drawn.

Thresholds are found without sorting: the floats of a row are searched bit by bit for the largest
value that still accepts enough tokens, or enough probability, in 32 passes of compare and reduce.
The result is exact, and ties at a threshold are all kept. Knows nothing of randomness.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float32, UInt32

from pallas_kernels.sampling.rows import DrawRows

_LARGEST = float(np.finfo(np.float32).max)
Accepts = Callable[[Float32[Array, "B 1"]], Bool[Array, " B"]]


def filtered(
    logits: Float32[Array, "B V"], rows: DrawRows, wanted: Bool[Array, " B"]
) -> Float32[Array, "B V"]:
    """Logits over temperature, 0 for the likeliest token and -inf for tokens that are filtered out.

    Softmax of the result is the distribution to draw from. Only `wanted` rows are right; they
    must have a temperature above 0.
    """
    top = jnp.clip(jnp.max(logits, axis=1, keepdims=True), -_LARGEST, _LARGEST)
    temperature = jnp.where(wanted, rows.temperature, 1.0)[:, None]
    scaled = jnp.minimum(logits - top, 0.0) / temperature
    scaled = jnp.where(scaled >= jnp.log(rows.min_p)[:, None], scaled, -jnp.inf)

    by_count = wanted & (rows.top_k > 0)
    by_mass = wanted & (rows.top_p < 1.0)
    no_threshold = jnp.full(logits.shape[0], -jnp.inf)
    threshold = lax.cond(
        jnp.any(by_count), _top_k_threshold, lambda *_: no_threshold, logits, rows, by_count
    )
    scaled = jnp.where(logits >= threshold[:, None], scaled, -jnp.inf)
    threshold = lax.cond(
        jnp.any(by_mass), _top_p_threshold, lambda *_: no_threshold, scaled, rows, by_mass
    )
    return jnp.where(scaled >= threshold[:, None], scaled, -jnp.inf)


def _top_k_threshold(
    logits: Float32[Array, "B V"], rows: DrawRows, wanted: Bool[Array, " B"]
) -> Float32[Array, " B"]:
    """The k-th largest logit of wanted rows, -inf of others."""

    def accepts(threshold: Float32[Array, "B 1"]) -> Bool[Array, " B"]:
        count = jnp.sum(logits >= threshold, axis=1, dtype=jnp.int32)
        return wanted & (count >= rows.top_k)

    return _largest_accepted(accepts, logits.shape[0])


def _top_p_threshold(
    scaled: Float32[Array, "B V"], rows: DrawRows, wanted: Bool[Array, " B"]
) -> Float32[Array, " B"]:
    """The largest value at and above which wanted rows have a share p of their probability."""
    weight = jnp.exp(scaled)
    enough = rows.top_p * jnp.sum(weight, axis=1)

    def accepts(threshold: Float32[Array, "B 1"]) -> Bool[Array, " B"]:
        mass = jnp.sum(jnp.where(scaled >= threshold, weight, 0.0), axis=1)
        return wanted & (mass >= enough)

    return _largest_accepted(accepts, scaled.shape[0])


def _largest_accepted(accepts: Accepts, num_rows: int) -> Float32[Array, " B"]:
    """The largest float that `accepts` accepts, which accepts all smaller ones; -inf if none.

    Built from the highest bit down, in the integers whose order is the floats' order:

        -inf        -1.0        -0.0        0.0         1.0         inf
        0x007fffff  0x407fffff  0x7fffffff  0x80000000  0xbf800000  0xff800000
    """

    def try_bit(step: Array, found: UInt32[Array, " B"]) -> UInt32[Array, " B"]:
        candidate = found | jnp.uint32(1) << (31 - step).astype(jnp.uint32)
        return jnp.where(accepts(_ordered_float(candidate)[:, None]), candidate, found)

    found = lax.fori_loop(0, 32, try_bit, jnp.zeros(num_rows, jnp.uint32))
    return jnp.where(found == 0, -jnp.inf, _ordered_float(found))


def _ordered_float(ordered: UInt32[Array, " B"]) -> Float32[Array, " B"]:
    """The float at a place in the order of floats; NaN, which accepts nothing, past either end."""
    bits = jnp.where(ordered >> 31, ordered ^ jnp.uint32(1 << 31), ~ordered)
    return lax.bitcast_convert_type(bits, jnp.float32)
