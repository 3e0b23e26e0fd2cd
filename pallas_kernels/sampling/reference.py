"""The specification of drawing a token: with a sort, one option after the other.

    logits ─ penalties ─ / temperature ─ min-p ─ top-k ─ top-p ─ + noise ─ the first of the largest

Each filter looks at what the one before left. Tokens that equal the last one kept are kept too.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from pallas_kernels.sampling.noise import row_noise
from pallas_kernels.sampling.rows import COUNT_BITS, DrawRows, is_penalised


def draw_reference(
    logits: Float[Array, "B V"],
    counts: Int32[Array, "Z V"],
    rows: DrawRows,
    noise: Float[Array, "B V"] | None = None,
) -> Int32[Array, " B"]:
    """The token of each row; `noise` None is the noise of the rows' seeds."""
    x = penalise(logits, counts, rows)
    if noise is None:
        noise = row_noise(rows.seed_high, rows.seed_low, rows.position, logits.shape[1])
    drawn = jnp.argmax(log_weights(x, rows) + noise.astype(x.dtype), axis=1)
    greedy = jnp.argmax(x, axis=1)
    return jnp.where(rows.temperature > 0, drawn, greedy).astype(jnp.int32)


def penalise(
    logits: Float[Array, "B V"], counts: Int32[Array, "Z V"], rows: DrawRows
) -> Float[Array, "B V"]:
    """Repetition penalty over prompt and output, frequency and presence penalty over the output.

    Repetition (Keskar et al. 2019, CTRL) divides positive logits and multiplies negative ones;
    frequency is subtracted once for each time that a token was generated, presence once in all.
    """
    x = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    packed = counts[rows.slot]  # [B, V]
    count = packed & ((1 << COUNT_BITS) - 1)
    repetition = jnp.where(packed != 0, rows.repetition[:, None], 1.0)
    changed = jnp.where(x > 0, x / repetition, x * repetition)
    changed -= rows.frequency[:, None] * count.astype(x.dtype)
    changed -= jnp.where(count > 0, rows.presence[:, None], 0.0)
    penalised = is_penalised(rows.presence, rows.frequency, rows.repetition)
    return jnp.where(penalised[:, None], changed, x)


def log_weights(x: Float[Array, "B V"], rows: DrawRows) -> Float[Array, "B V"]:
    """Softmax of the result is the distribution to draw from; -inf where a token is left out."""
    temperature = jnp.where(rows.temperature > 0, rows.temperature, 1.0)[:, None]
    largest = float(np.finfo(x.dtype).max)
    top = jnp.clip(jnp.max(x, axis=1, keepdims=True), -largest, largest)
    scaled = jnp.minimum(x - top, 0.0) / temperature
    kept = scaled >= jnp.log(rows.min_p.astype(x.dtype))[:, None]
    descending = jnp.sort(x, axis=1, descending=True)
    V = x.shape[1]
    last = jnp.where(rows.top_k > 0, jnp.minimum(rows.top_k, V), V) - 1
    kept &= x >= jnp.take_along_axis(descending, last[:, None], axis=1)

    order = jnp.argsort(x, axis=1, descending=True)
    mass = jnp.where(kept, jnp.exp(scaled), 0.0)
    sums = jnp.cumsum(jnp.take_along_axis(mass, order, axis=1), axis=1)
    enough = sums >= rows.top_p[:, None] * sums[:, -1:]
    last = jnp.where(rows.top_p < 1, jnp.argmax(enough, axis=1), V - 1)
    kept &= x >= jnp.take_along_axis(descending, last[:, None], axis=1)
    return jnp.where(kept, scaled, -jnp.inf)
