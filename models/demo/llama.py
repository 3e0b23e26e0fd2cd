"""A plain Llama in jnp, just large enough to train the demo model and to write greedily with it.

Owns the shapes, the forward pass and greedy continuation. Knows nothing of tokenizers, files or
optimisers, and shares no code with the engine on purpose: what the engine answers is compared
with what this file says.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

Params = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """Sizes of the model, by the names of the axes."""

    V: int = 2048
    D: int = 192
    F: int = 512
    L: int = 6
    N: int = 6
    K: int = 2
    H: int = 32
    theta: float = 10000.0
    eps: float = 1e-5
    positions: int = 1024


def init(shape: Shape, key: Array) -> Params:
    """Random weights; matrices are `[in, out]` and scaled by their fan-in, norms are ones."""
    s = shape
    sizes = {
        "q": (s.D, s.N * s.H),
        "k": (s.D, s.K * s.H),
        "v": (s.D, s.K * s.H),
        "o": (s.N * s.H, s.D),
        "gate": (s.D, s.F),
        "up": (s.D, s.F),
        "down": (s.F, s.D),
    }

    def layer(key: Array) -> Params:
        keys = jax.random.split(key, len(sizes))
        matrices = {
            name: jax.random.normal(k, size) * (0.5 * size[0] ** -0.5)
            for k, (name, size) in zip(keys, sizes.items(), strict=True)
        }
        return matrices | {"attention_norm": jnp.ones(s.D), "mlp_norm": jnp.ones(s.D)}

    embed_key, *layer_keys = jax.random.split(key, s.L + 1)
    return {
        "embed": jax.random.normal(embed_key, (s.V, s.D)) * 0.05,
        "layers": [layer(k) for k in layer_keys],
        "norm": jnp.ones(s.D),
    }


def rms_norm(x: Float[Array, "*B D"], weight: Float[Array, " D"], eps: float) -> Array:
    """`x` divided by its root mean square over the last axis, times `weight`."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def rotate(x: Float[Array, "B T N H"], theta: float) -> Float[Array, "B T N H"]:
    """RoPE at positions 0..T-1, halves rotated against each other (arXiv 2104.09864)."""
    half = x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half) / half)
    angles = jnp.arange(x.shape[1])[:, None] * frequencies
    cos, sin = jnp.cos(angles)[:, None, :], jnp.sin(angles)[:, None, :]
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def attention(
    shape: Shape, layer: Params, x: Float[Array, "B T D"], mask: Bool[Array, "B T T"]
) -> Float[Array, "B T D"]:
    """Grouped-query attention; the G queries of one key head are rows of one product."""
    s, (B, T, _) = shape, x.shape
    G = s.N // s.K
    fused = x @ jnp.concatenate([layer["q"], layer["k"], layer["v"]], axis=1)
    q, k, v = jnp.split(fused, [s.N * s.H, (s.N + s.K) * s.H], axis=-1)
    q = rotate(q.reshape(B, T, s.N, s.H), s.theta) * s.H**-0.5
    k = rotate(k.reshape(B, T, s.K, s.H), s.theta)
    q = q.reshape(B, T, s.K, G, s.H).transpose(0, 2, 3, 1, 4).reshape(B, s.K, G * T, s.H)
    k, v = k.transpose(0, 2, 1, 3), v.reshape(B, T, s.K, s.H).transpose(0, 2, 1, 3)
    scores = (q @ k.swapaxes(-1, -2)).reshape(B, s.K, G, T, T)
    weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores, -1e30), axis=-1)
    mixed = (weights.reshape(B, s.K, G * T, T) @ v).reshape(B, s.K, G, T, s.H)
    out: Array = mixed.transpose(0, 3, 1, 2, 4).reshape(B, T, s.N * s.H) @ layer["o"]
    return out


def mlp(layer: Params, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """SwiGLU: `(silu(x gate) * (x up)) down`."""
    gate, up = jnp.split(x @ jnp.concatenate([layer["gate"], layer["up"]], axis=1), 2, axis=-1)
    out: Array = (jax.nn.silu(gate) * up) @ layer["down"]
    return out


def logits(
    shape: Shape, params: Params, tokens: Int[Array, "B T"], segments: Int[Array, "B T"]
) -> Float[Array, "B T V"]:
    """Scores of the next token after each token.

    Tokens see the tokens before them that carry the same number in `segments`, so several
    documents can lie in one row without seeing each other.
    """
    T = tokens.shape[1]
    causal = jnp.arange(T)[:, None] >= jnp.arange(T)
    mask = causal & (segments[:, :, None] == segments[:, None, :])
    x = params["embed"][tokens]
    for layer in params["layers"]:
        x += attention(shape, layer, rms_norm(x, layer["attention_norm"], shape.eps), mask)
        x += mlp(layer, rms_norm(x, layer["mlp_norm"], shape.eps))
    scores: Array = rms_norm(x, params["norm"], shape.eps) @ params["embed"].T
    return scores


@partial(jax.jit, static_argnums=0)
def most_likely(shape: Shape, params: Params, tokens: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """The most likely next token after each token; every row is one document."""
    return jnp.argmax(logits(shape, params, tokens, jnp.zeros_like(tokens)), axis=-1)


def greedy(
    shape: Shape, params: Params, prompt: list[int], stop: set[int], limit: int = 96
) -> list[int]:
    """The most likely continuation of `prompt`, without the stop token that ended it.

    Recomputes the whole row for every token (a row is padded to a multiple of 128).
    """
    written: list[int] = []
    while len(written) < limit:
        row = prompt + written
        padded = np.zeros((1, -(-len(row) // 128) * 128), np.int32)
        padded[0, : len(row)] = row
        token = int(most_likely(shape, params, padded)[0, len(row) - 1])
        if token in stop:
            break
        written.append(token)
    return written
