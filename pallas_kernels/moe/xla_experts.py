"""Experts on a CPU: one tile after the other, in pieces of the weights that a cache holds.

    tiles with an expert ─> piece of its gate-up ─ + ─> activation ─> piece of its down ─ + ─> out

XLA copies what a dynamic index picks before it multiplies. A piece is copied into the cache and
read from there, so that each weight comes from memory once; weights in fewer bits become float32 on
that way. Tiles of no expert are not visited.

    all tokens ─> every expert at once ─> out of those that each token chose

A few tokens that choose nearly all experts go through every one of them instead, which copies
nothing: 8 tokens, 2 of 8 experts, took 10.6 ms for 13.6 (two cores of an EPYC, JAX 0.11.2).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32, Int32

from pallas_kernels.moe.activations import activate, num_parts
from pallas_kernels.moe.formats import FORMATS, is_packed, numbers, scales
from pallas_kernels.moe.tiles import sort_into_tiles

_PLAIN_BYTES = 4 * 2**20  # products of fewer rows cost more than the cache nearer by saves
_PACKED_BYTES = 256 * 1024  # as float32
_TILES = ((4, 1), (8, 2), (16, 16), (32, 32))  # rows of a tile, choices that an expert then gets
_LARGEST = 64
_FEW = 8  # rows of a tile for which it is the weights that take time


def xla_experts(
    x: Float[Array, "T D"],
    weights: Float[Array, "T k"],
    chosen: Int32[Array, "T k"],
    gate_up: Any,
    down: Any,
    *,
    activation: str,
    gate_up_bias: Float[Array, "E F2"] | None,
    down_bias: Float[Array, "E D"] | None,
    tile: int | None,
) -> Float[Array, "T D"]:
    """`experts` without a kernel."""
    E = jax.tree.leaves(down)[0].shape[0]
    if tile is None and _reads_all(x, chosen, gate_up, down):
        return _through_all(x, weights, chosen, gate_up, down, activation, gate_up_bias, down_bias)
    size = tile or choose_tile(chosen.size, E)
    tiles = sort_into_tiles(chosen, E, size)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    rows = x.at[tiles.token].get(mode="fill", fill_value=0).reshape(-1, size, x.shape[1])

    def one(number: Any, out: Array) -> Any:
        expert = tiles.expert[number]
        hidden = _product(rows[number], gate_up, expert, gate_up_bias)
        parts = jnp.split(hidden, num_parts(activation), axis=-1)
        active = activate(activation, parts).astype(x.dtype)
        return out.at[number].set(_product(active, down, expert, down_bias))

    count = (tiles.expert < E).sum()
    zeros = jnp.zeros_like(rows, wide) + _nothing(gate_up, down, gate_up_bias, down_bias)
    out = lax.fori_loop(0, count, one, zeros).reshape(-1, x.shape[1])
    picked = out.at[tiles.place].get(mode="fill", fill_value=0)  # [T, k, D]
    return jnp.asarray((picked * weights[:, :, None]).sum(1).astype(x.dtype))


def _reads_all(x: Array, chosen: Array, gate_up: Any, down: Any) -> bool:
    """Whether rows cost nothing, and more than 3 of 5 experts would be read anyway."""
    if is_packed(gate_up) or is_packed(down) or len(x) > _FEW or chosen.size <= len(down):
        return False
    # numbers of another type would be converted all at once
    return bool(x.dtype == gate_up.dtype == down.dtype == jnp.float32)


def _through_all(
    x: Float[Array, "T D"],
    weights: Float[Array, "T k"],
    chosen: Int32[Array, "T k"],
    gate_up: Float[Array, "E D F2"],
    down: Float[Array, "E F D"],
    activation: str,
    gate_up_bias: Float[Array, "E F2"] | None,
    down_bias: Float[Array, "E D"] | None,
) -> Float[Array, "T D"]:
    """What experts make of tokens that did not choose them is left out, were it NaN."""

    def multiply(x: Array, weight: Array, bias: Array | None) -> Array:
        out = jnp.einsum("eta,eac->etc", x, weight)
        return out if bias is None else out + bias[:, None]

    E = len(down)
    hidden = multiply(jnp.broadcast_to(x, (E, *x.shape)), gate_up, gate_up_bias)
    active = activate(activation, jnp.split(hidden, num_parts(activation), axis=-1))
    out = multiply(active.astype(x.dtype), down, down_bias)  # [E, T, D]
    taken = chosen == jnp.arange(E)[:, None, None]  # [E, T, k]
    share = jnp.where(taken, weights, 0).sum(-1)[:, :, None]
    return jnp.where(taken.any(-1)[:, :, None], out * share, 0).sum(0).astype(x.dtype)


def _nothing(*arrays: Any) -> Array:
    """Zero, but of each device its own if the arrays are: what a loop in shard_map starts from."""
    return jnp.asarray(sum(leaf[:0].sum(dtype=jnp.float32) for leaf in jax.tree.leaves(arrays)))


def choose_tile(choices: int, E: int) -> int:
    """Rows that hold what an expert gets: nearly always, where they are few and cost nothing."""
    return next((size for size, mean in _TILES if choices <= mean * E), _LARGEST)


def _product(x: Array, weight: Any, expert: Array, bias: Array | None) -> Array:
    """x W of one expert, plus its bias."""
    out = (_packed if is_packed(weight) else _plain)(x, weight, expert)
    return out if bias is None else out + bias[expert]


def _plain(x: Float[Array, "Q A"], weight: Float[Array, "E A C"], expert: Array) -> Array:
    """The sum over pieces of rows."""
    _, A, C = weight.shape
    rows = _divisor(A, C * weight.dtype.itemsize, _PLAIN_BYTES) if len(x) <= _FEW else A
    pieces = weight.reshape(-1, rows, C)
    multiply = partial(jnp.dot, preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))

    def piece(number: Any) -> Any:
        part = lax.dynamic_slice_in_dim(x, number * rows, rows, axis=1)
        return multiply(part, pieces[expert * (A // rows) + number].astype(x.dtype))

    return jnp.asarray(lax.fori_loop(1, A // rows, lambda i, total: total + piece(i), piece(0)))


def _packed(x: Float[Array, "Q A"], weight: Any, expert: Array) -> Float32[Array, "Q C"]:
    """Pieces of columns side by side."""
    (E, C, W), A = weight.words.shape, x.shape[1]
    form, columns = FORMATS[type(weight)], _divisor(C, A * 4, _PACKED_BYTES)
    words = weight.words.reshape(E, -1, columns, W)
    scale = jnp.swapaxes(scales(weight)[expert], 0, 1).reshape(-1, columns, weight.scale.shape[1])

    def piece(number: Array) -> Array:
        grouped = numbers(words[expert, number], form).reshape(columns, scale.shape[2], -1)
        matrix = (grouped * scale[number][:, :, None]).reshape(columns, A)
        return jnp.dot(x.astype(jnp.float32), matrix.T)

    found = lax.map(piece, jnp.arange(C // columns))  # [pieces, Q, columns]
    return jnp.swapaxes(found, 0, 1).reshape(len(x), C)


def _divisor(count: int, size: int, piece: int) -> int:
    """The most of `count` things of `size` bytes that fit in a piece and divide them all."""
    fitting = range(1, max(1, min(count, piece // size)) + 1)
    return max(n for n in fitting if count % n == 0)
