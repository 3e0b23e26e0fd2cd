"""Latent attention that sees the latents whose index keys score highest, and no others.

    index keys of a row ── scores of 16 tokens at once ── top ──> positions [T, top]
    latents there ── gathered, of 256 tokens ──> pages of each token's own ── mla_decode ──> out

The choice is a step of its own, for a model's next layers may see what one has chosen.

A step whose tokens all have fewer positions before them than may be seen goes through `mla_decode`
or `mla_ragged` as without an index. Scores and choice are XLA's on every device, attention is that
of the backend: to its kernel a token is a row of a decode step, and what was chosen is its pages.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32, Int32, Num

from pallas_kernels.attention.query_blocks import QueryBlocks
from pallas_kernels.dispatch import Backend
from pallas_kernels.mla.latent_attention import mla_decode, mla_ragged

_CHUNK_SLOTS = 1024  # index keys scored at once
_PIECE = 256  # tokens at once: of DeepSeek V3.2 2048 latents each, 576 MiB in bfloat16


class IndexQueries(NamedTuple):
    """What each token looks for: a key's score is the sum over i of weights_i relu(q_i . key)."""

    q: Float[Array, "T I E"]
    weights: Float32[Array, "T I"]


def choose_latents(
    index: IndexQueries,
    index_pages: Num[Array, "P S E"],
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " T"],
    *,
    blocks: QueryBlocks | None,
    top: int,
) -> Int32[Array, "T W"]:
    """Positions 0 .. positions[t] of token t's row whose keys score highest: the best first, the
    earlier of two with one score, and behind them any. Of padding, any.

    W is `top`; all is 0 in a step in which every token sees everything. Without `blocks` token t is
    row t. Specification: `reference.mla_sparse_reference`.
    """
    T = positions.shape[0]
    tokens, rows = jnp.arange(T)[:, None], jnp.arange(T)
    if blocks is not None:
        tokens, rows = blocks.tokens, blocks.rows

    def choose(tokens: Array, rows: Array) -> Array:
        asked = positions.at[tokens].get(mode="fill", fill_value=-1)  # [M, Q]
        queries = (x.at[tokens].get(mode="fill", fill_value=0) for x in index)
        scores = index_scores(IndexQueries(*queries), index_pages, page_table[rows], asked)
        return lax.top_k(scores, top)[1]  # [M, Q, top]

    def some() -> Array:
        chosen = _in_pieces(choose, _PIECE // tokens.shape[1], tokens, rows, fill=(T, 0))
        chosen = chosen.reshape(-1, top)
        return chosen if blocks is None else chosen[blocks.places]

    none = jnp.zeros((T, top), jnp.int32)
    if page_table.shape[1] * index_pages.shape[1] <= top:
        return none
    chosen: Array = lax.cond(positions.max() < top, lambda: none, some)
    return chosen


def mla_chosen(
    q: Float[Array, "T N H"],
    latent_pages: Float[Array, "P S H"],
    chosen: Int32[Array, "T W"],
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " T"],
    *,
    blocks: QueryBlocks | None,
    scale: float,
    value_dim: int,
    backend: Backend | None = None,
) -> Float[Array, "T N V"]:
    """Token t over those latents of its row that `choose_latents` found for it.

    Specification: `reference.mla_sparse_reference`.

    Raises:
        KernelError: the GPU's kernel does not take these sizes.
    """
    top = chosen.shape[1]
    sizes: dict[str, Any] = {"scale": scale, "value_dim": value_dim, "backend": backend}
    dense = mla_decode if blocks is None else partial(mla_ragged, blocks=blocks)

    def all_of_them() -> Array:
        return dense(q, latent_pages, page_table, positions, **sizes)

    def some() -> Array:
        rows = jnp.arange(q.shape[0])
        if blocks is not None:
            rows = blocks.rows[blocks.places // blocks.tokens.shape[1]]
        return _attend(q, latent_pages, chosen, page_table[rows], positions, sizes)

    if page_table.shape[1] * latent_pages.shape[1] <= top:
        return all_of_them()
    out: Array = lax.cond(positions.max() < top, all_of_them, some)
    return out


def index_scores(
    index: IndexQueries,
    index_pages: Num[Array, "P S E"],
    tables: Int32[Array, "M MP"],
    positions: Int32[Array, "M Q"],
) -> Float32[Array, "M Q slots"]:
    """Scores of the keys of each block's table, by queries [M, Q, I, E] and weights [M, Q, I].

    A key behind the query scores -inf. No work on chunks of pages that no query sees.
    """
    (M, Q), S = positions.shape, index_pages.shape[1]
    C = max(1, min(_CHUNK_SLOTS // S, tables.shape[1]))
    slots = tables.shape[1] * S
    tables = jnp.pad(tables, ((0, 0), (0, -tables.shape[1] % C)))

    def chunk(number: Array, scores: Array) -> Array:
        pages = lax.dynamic_slice_in_dim(tables, number * C, C, axis=1)
        keys = index_pages[pages].reshape(M, C * S, -1)
        found = jnp.einsum(
            "mqie,mje->mqij", index.q, keys.astype(index.q.dtype),
            preferred_element_type=jnp.float32,
        )  # fmt: skip
        found = (jax.nn.relu(found) * index.weights[..., None]).sum(2)
        slot = number * C * S + jnp.arange(C * S)
        found = jnp.where(slot <= positions[..., None], found, -jnp.inf)  # others may be NaN
        return lax.dynamic_update_slice_in_dim(scores, found, number * C * S, axis=2)

    unseen = jnp.full((M, Q, tables.shape[1] * S), -jnp.inf, jnp.float32)
    scores: Array = lax.fori_loop(0, positions.max() // (C * S) + 1, chunk, unseen)
    return scores[..., :slots]


def _attend(
    q: Array, latent_pages: Array, chosen: Array, tables: Array, positions: Array,
    sizes: dict[str, Any],
) -> Array:  # fmt: skip
    """Each token over what is `chosen` of its own table, as much as there is before it."""
    (T, top), (S, H) = chosen.shape, latent_pages.shape[1:]
    latents = latent_pages.reshape(-1, H)

    # queries are gathered, and results selected, where slices would do: those XLA would have the
    # kernel itself read and write, which takes the loop out of the step's CUDA graph
    def attend(tokens: Array) -> Array:
        newest = jnp.minimum(positions.at[tokens].get(mode="fill", fill_value=-1), top - 1)
        places = jnp.pad(chosen.at[tokens].get(mode="clip"), ((0, 0), (0, -top % S)))
        pages = jnp.take_along_axis(tables.at[tokens].get(mode="clip"), places // S, 1, mode="clip")
        own = latents[pages * S + places % S].reshape(-1, S, H)
        table = jnp.arange(own.shape[0], dtype=jnp.int32).reshape(tokens.size, -1)
        out = mla_decode(q.at[tokens].get(mode="clip"), own, table, newest, **sizes)
        return jnp.asarray(jnp.where(newest[:, None, None] < 0, 0, out))

    return _in_pieces(attend, _PIECE, jnp.arange(T), fill=(T,))


def _in_pieces(
    compute: Callable[..., Array], size: int, *arrays: Array, fill: tuple[int, ...]
) -> Array:
    """`compute` of so many rows of all arrays after another, filled up to whole pieces."""
    rows = arrays[0].shape[0]
    if rows <= size:
        return compute(*arrays)
    pieces = [
        jnp.pad(
            array,
            ((0, -rows % size), *((0, 0),) * (array.ndim - 1)),
            constant_values=value,
        ).reshape(-1, size, *array.shape[1:])
        for array, value in zip(arrays, fill, strict=True)
    ]
    out: Array = lax.map(lambda piece: compute(*piece), tuple(pieces))
    return out.reshape(-1, *out.shape[2:])[:rows]
