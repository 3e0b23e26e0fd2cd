"""Attention of packed chunks and single tokens, some of a step's blocks at a time.

A program has room for as many blocks as its tokens could be cut into; most steps fill few of them,
and what is empty is not computed here. Rows of one token, as those that decode, are blocks of one
query: in a block of 16, fifteen would be in vain. Steps of 64 and of 256 tokens, 15 of them of rows
that decode, took 0.50 and 0.62 of the time with room for 64 rows, 0.7 and 0.9 with room for 16 (a
Llama of 110M parameters, 200 tokens of context; two cores of a Xeon, JAX 0.11.2).

For machines without a GPU, as `chunked.py` is.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32, Num

from pallas_kernels.attention.chunked import attend_blocks
from pallas_kernels.attention.query_blocks import QueryBlocks

Attend = Callable[[Int32[Array, "M Q"], Int32[Array, " M"]], Float[Array, "M Q N V"]]

_BLOCKS = 8  # at a time
_ROWS = 16  # of one token, at a time


def attend_packed(
    q: Float[Array, "T N H"],
    k_pages: Num[Array, "P K S H"],
    v_pages: Num[Array, "P K S H"] | None,
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " T"],
    blocks: QueryBlocks,
    **options: Any,
) -> Float[Array, "T N V"]:
    """`attend_blocks` of packed tokens, taken apart into their blocks and packed again."""
    T, few = q.shape[0], blocks.rows.size <= _BLOCKS
    alone = (blocks.length == 1) & (not few)

    def attend(tokens: Int32[Array, "M Q"], rows: Int32[Array, " M"]) -> Float[Array, "M Q N V"]:
        queries = q.at[tokens].get(mode="fill", fill_value=0)
        asked = positions.at[tokens].get(mode="fill", fill_value=-1)
        return attend_blocks(queries, k_pages, v_pages, page_table[rows], asked, **options)

    chunks = jnp.where(alone[blocks.rows][:, None], T, blocks.tokens)
    out = _filled_only(attend, chunks, blocks.rows, T, _BLOCKS)
    out = out.reshape(-1, *out.shape[2:])[blocks.places]
    if few:  # all at once: for rows of one token there would be another loop to compile
        return out
    singles = jnp.where(alone, blocks.first, T)
    found = _filled_only(attend, singles[:, None], jnp.arange(alone.size), T, _ROWS)
    return out.at[singles].set(found[:, 0], mode="drop")


def _filled_only(
    attend: Attend, tokens: Int32[Array, "M Q"], rows: Int32[Array, " M"], empty: int, size: int
) -> Float[Array, "M Q N V"]:
    """`attend` to blocks that begin with a token, `size` at a time; others: any value."""
    M = tokens.shape[0]
    if size >= M:
        return attend(tokens, rows)
    filled = tokens[:, 0] < empty
    first, last = jnp.argmax(filled), M - jnp.argmax(filled[::-1])
    turns = jnp.where(filled.any(), -(-(last - first) // size), 0)

    def some(turn: Array, out: Array) -> Array:
        at = jnp.minimum(first + turn * size, M - size)
        part = [lax.dynamic_slice_in_dim(each, at, size) for each in (tokens, rows)]
        return lax.dynamic_update_slice_in_dim(out, attend(*part), at, 0)

    shape = jax.eval_shape(attend, tokens, rows)
    out: Array = lax.fori_loop(0, turns, some, jnp.zeros(shape.shape, shape.dtype))
    return out
