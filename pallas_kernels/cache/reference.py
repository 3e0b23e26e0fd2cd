"""From the fused projection to what attention reads: in jnp, the specification.

    qkv [T, (N+2K)H] ── q ── norm ── rotate ── pad ──> q [T, N, page H]
                     ├─ k ── norm ── rotate ── pad ──> k_pages [P, K, S, page H]
                     └─ v ──────────────────── pad ──> v_pages [P, K, S, page H]

On CPUs XLA compiles it as it is here.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32, Num

from pallas_kernels.cache.kv_write import kv_write
from pallas_kernels.cache.quantise import quantise

Turn = tuple[Float[Array, "T pairs"], Float[Array, "T pairs"]]  # cosines and sines


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HeadNorms:
    """x / rms(x) * (weight + offset), over each head of the queries and of the keys."""

    q: Float[Array, " H"]
    k: Float[Array, " H"]
    eps: float = field(metadata={"static": True})
    offset: float = field(metadata={"static": True}, default=0.0)


class Pages(NamedTuple):
    """Where the keys and values of all tokens lie; with scales if in eight bits.

    Scales may have more heads than pages: those behind are not used.
    """

    k: Num[Array, "P K S Hp"]
    v: Num[Array, "P K S Hp"]
    k_scales: Float32[Array, "P Ks S"] | None = None
    v_scales: Float32[Array, "P Ks S"] | None = None


def rotate(x: Float[Array, "T N H"], turn: Turn) -> Float[Array, "T N H"]:
    """Turn the pairs (i, i + R/2) of every head; dimensions from R on pass."""
    cos, sin = (part[:, None, :] for part in turn)  # [T, 1, pairs]
    pairs = cos.shape[-1]
    a, b, rest = jnp.split(x, (pairs, 2 * pairs), axis=-1)
    turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)
    return jnp.concatenate([turned, rest], axis=-1) if rest.shape[-1] else turned


def rms_norm(x: Float[Array, "*any H"], weight: Float[Array, " H"], eps: float) -> Array:
    """x / rms(x) * weight over the last axis, in float32 or wider."""
    x = _widened(x)
    scale = jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps)
    return x * scale * weight


def _widened(x: Array) -> Array:
    """In float32, if it is not wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def qkv_write_reference(
    qkv: Float[Array, "T columns"],
    pages: Pages,
    page: Int32[Array, " T"],
    slot: Int32[Array, " T"],
    *,
    head_dim: int,
    turn: Turn | None = None,
    norms: HeadNorms | None = None,
) -> tuple[Float[Array, "T N Hp"], Pages]:
    """The queries of attention, and the pages with token t in `page[t]`, `slot[t]`.

    A page past the end is dropped; no two tokens that are kept may share a place.
    """
    width = pages.k.shape[3]
    q, k, v = ready_heads(qkv, pages.k.shape[1], head_dim, turn, norms)
    q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, width - head_dim))) for x in (q, k, v))
    k_pages, k_scales = _write(pages.k, pages.k_scales, k, page, slot)
    v_pages, v_scales = _write(pages.v, pages.v_scales, v, page, slot)
    return q.astype(qkv.dtype), Pages(k_pages, v_pages, k_scales, v_scales)


def ready_heads(
    qkv: Float[Array, "T columns"],
    K: int,
    head_dim: int,
    turn: Turn | None,
    norms: HeadNorms | None,
) -> tuple[Float[Array, "T N H"], Float[Array, "T K H"], Float[Array, "T K H"]]:
    """Queries and keys, normed and rotated in float32 or wider, and values as they are."""
    N = qkv.shape[1] // head_dim - 2 * K
    columns = jnp.split(qkv, (N * head_dim, (N + K) * head_dim), axis=1)
    q, k, v = (part.reshape(part.shape[0], -1, head_dim) for part in columns)
    q, k = _widened(q), _widened(k)
    if norms is not None:
        q = rms_norm(q, norms.q + norms.offset, norms.eps)
        k = rms_norm(k, norms.k + norms.offset, norms.eps)
    return (q, k, v) if turn is None else (rotate(q, turn), rotate(k, turn), v)


def _write(
    pages: Array, scales: Array | None, new: Array, page: Array, slot: Array
) -> tuple[Array, Array | None]:
    if scales is None:
        return kv_write(pages, new, page, slot), None
    values, scale = quantise(new, pages.dtype)
    scale = jnp.pad(scale, ((0, 0), (0, scales.shape[1] - scale.shape[1])))
    return kv_write(pages, values, page, slot), kv_write(scales, scale, page, slot)
