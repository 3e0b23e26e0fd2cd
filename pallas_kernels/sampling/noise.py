"""Gumbel noise from a row's seed: the bits of jax.random, by hand, so that a kernel can make them.

    seed ─ fold in the position ─ key ─┐
    token id ──────────────────────────┴─ threefry2x32 (Salmon et al. 2011) ─ 32 bits ─ Gumbel

The noise of a token depends on seed, position and id only. Knows nothing of logits.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, UInt32

_PARITY = 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_SERIES = 2.0**-5  # below this, log1p is its series


def threefry(key: tuple[Any, Any], high: Any, low: Any) -> tuple[Any, Any]:
    """The block cipher of jax.random: 64 bits for the counter (high, low), all uint32."""
    keys = (*key, key[0] ^ key[1] ^ jnp.uint32(_PARITY))
    x, y = high + keys[0], low + keys[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            x = x + y
            y = x ^ (y << jnp.uint32(distance) | y >> jnp.uint32(32 - distance))
        x = x + keys[(group + 1) % 3]
        y = y + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y


def row_key(high: Any, low: Any, position: Any) -> tuple[Any, Any]:
    """`jax.random.fold_in` of a key's two words."""
    return threefry((high, low), jnp.zeros_like(high), position.astype(jnp.uint32))


def bits(key: tuple[Any, Any], ids: Any) -> Any:
    """The 32 bits of `jax.random.bits` for token ids."""
    counter = ids.astype(jnp.uint32)
    x, y = threefry(key, jnp.zeros_like(counter), counter)
    return x ^ y


def gumbel(bits: Any) -> Any:
    """Standard Gumbel noise from all 32 random bits.

    -log(-log(1 - u)) with u as small as 2^-33: large noise, which rare tokens need, is as fine as
    float32 allows, where uniform floats of 23 bits would stop at 16.
    """
    return -jnp.log(-jnp.log1p(-_uniform(bits)))


def gumbel_without_log1p(bits: Any) -> Any:
    """The same within a kernel: for small u, where 1 - u would round to 1, log1p is its series."""
    u = _uniform(bits)
    series = u * (1 + u * (1 / 2 + u * (1 / 3 + u * (1 / 4 + u * (1 / 5)))))
    return -jnp.log(jnp.where(u < _SERIES, series, -jnp.log(1 - u)))


def row_noise(
    seed_high: UInt32[Array, " B"],
    seed_low: UInt32[Array, " B"],
    position: Int32[Array, " B"],
    V: int,
) -> Float32[Array, "B V"]:
    """The noise of every token of every row.

    The bits are made in line: jax.random's program for a CPU is a loop of passes over all tokens
    (16 rows of 32,064, with one core: 3.9 ms, and 0.6 in line).
    """
    high, low = row_key(seed_high, seed_low, position)
    noise: Array = gumbel(bits((high[:, None], low[:, None]), jnp.arange(V)))
    return noise


def _uniform(bits: Any) -> Any:
    return jnp.clip(bits.astype(jnp.float32) * 2.0**-32, 2.0**-33, 1 - 2.0**-24)
