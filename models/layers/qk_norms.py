"""Norms of queries and keys, other than the one that is computed as they are written into pages.

That one, over each head with one vector of weights before the rotation, is `pallas_kernels`'. Owns
the others: over all heads at once, with weights for each head, with a mean, behind the rotation.
Knows nothing of the cache.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from models.config.decoder import ModelConfig, QKNorm
from models.layers.parts import LayerNorm, RMSNorm
from models.layers.rope import RopeConfig, Rotation, rotate
from pallas_kernels import HeadNorms


def has_norm(kind: QKNorm | None, rope: RopeConfig | None) -> bool:
    """Whether a layer that rotates so norms its heads."""
    return kind is not None and (kind.unrotated or rope is not None)


def head_norm(config: ModelConfig, kind: QKNorm, heads: int, H: int) -> RMSNorm | LayerNorm | None:
    """The norm of queries or of keys that come as `heads` heads; None if it has no parameters."""
    if not kind.weight:
        return None
    shape = {"head": (H,), "heads": (heads, H), "width": (heads * H,)}[kind.over]
    if kind.norm == "rms":
        return RMSNorm(*shape, eps=config.norm_eps, offset=config.norm_offset)
    return LayerNorm(*shape, eps=config.norm_eps, bias=kind.bias)


def norms_of_write(
    config: ModelConfig,
    kind: QKNorm | None,
    q: RMSNorm | LayerNorm | None,
    k: RMSNorm | LayerNorm | None,
    H: int,
) -> HeadNorms | None:
    """Both norms as the write into pages takes them, or None where it does not."""
    ones = jnp.ones(H, jnp.float32)
    if kind is None or kind.over != "head" or kind.rotated:
        return None
    if not kind.weight:
        return HeadNorms(ones, ones, eps=config.norm_eps)
    if not isinstance(q, RMSNorm) or not isinstance(k, RMSNorm | None):
        return None
    return HeadNorms(
        q.weight[...], ones if k is None else k.weight[...], eps=q.eps, offset=float(q.offset)
    )


def norm_heads(
    kind: QKNorm,
    norm: RMSNorm | LayerNorm,
    x: Float[Array, "T columns"],
    head_dim: int,
    turn: Rotation | None,
) -> Float[Array, "T columns"]:
    """Queries or keys normed, and rotated where the norm is behind the rotation."""
    if kind.over == "width":
        return norm(x)
    heads = x.reshape(x.shape[0], -1, head_dim)  # [T, N, H]
    if kind.rotated and turn is not None:
        heads = rotate(heads, turn)
    return norm(heads).reshape(x.shape)
