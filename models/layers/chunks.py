"""Attention within chunks of C positions, as attention over rows that are no longer than C.

    row of 3 C / 2 tokens     |0 . . . . . C-1|C . . . 3C/2-1|       pages: table[0 .. 2 C / S)
    as two rows               |0 . . . . . C-1|                      pages: table[0 .. C / S)
                                              |0 . . . C/2-1|        pages: table[C / S .. 2 C / S)

A query sees what lies before it in its own chunk, which is a part of the row's pages when pages
divide chunks: so kernels need not know of chunks. Source: Llama 4's published model code. Knows
nothing of layers and caches.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int32

from models.errors import UnsupportedError
from pallas_kernels import QueryBlocks, query_blocks


class View(NamedTuple):
    """A step's rows, as kernels are given them."""

    page_table: Int32[Array, "rows MP"]
    positions: Int32[Array, " T"]
    blocks: QueryBlocks | None


def within_chunks(whole: View, chunk: int, page_size: int) -> View:
    """The same tokens in rows that begin with a chunk.

    Raises:
        UnsupportedError: pages do not divide a chunk.
    """
    if chunk % page_size:
        raise UnsupportedError(
            f"This model attends within chunks of {chunk} tokens, and pages of {page_size} do not "
            "divide them; use a page size that does."
        )
    table, positions, blocks = whole
    pages = chunk // page_size
    if blocks is None:  # a decode step, where token t is row t
        return View(_part(table, positions // chunk, pages), positions % chunk, None)
    T, count = positions.shape[0], blocks.length
    first = positions[jnp.minimum(blocks.first, T - 1)]  # of each row
    number = first[:, None] // chunk + jnp.arange(-(-T // chunk) + 1)  # [B, pieces] chunks met
    begin, end = (
        jnp.clip(edge * chunk - first[:, None], 0, count[:, None]) for edge in (number, number + 1)
    )
    start = (blocks.first[:, None] + begin).reshape(-1)
    row = jnp.repeat(jnp.arange(len(table)), number.shape[1])
    return View(
        _part(table[row], number.reshape(-1), pages),
        positions % chunk,
        query_blocks(start, (end - begin).reshape(-1), T),
    )


def _part(
    table: Int32[Array, "rows MP"], number: Int32[Array, " rows"], pages: int
) -> Int32[Array, "rows pages"]:
    """The pages of one chunk of each row; those beyond the table are never read."""
    place = number[:, None] * pages + jnp.arange(min(pages, table.shape[1]))
    return jnp.take_along_axis(table, jnp.minimum(place, table.shape[1] - 1), axis=1)
