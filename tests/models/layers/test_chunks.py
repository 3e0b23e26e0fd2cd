"""Rows that begin with a chunk see what a mask of chunks lets through."""

import jax.numpy as jnp
import numpy as np
import pytest

from models.errors import UnsupportedError
from models.layers.chunks import View, within_chunks
from pallas_kernels import paged_decode, query_blocks, ragged_attention

S, C, PAGES = 16, 32, 8  # slots of a page, positions of a chunk, pages of a row


def pages(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys and values of one head, each row's in order; a table that owns shuffled pages."""
    rng = np.random.default_rng(0)
    k, v = rng.standard_normal((2, rows * PAGES, 1, S, 8)).astype(np.float32)
    return k, v, rng.permutation(rows * PAGES).reshape(rows, PAGES).astype(np.int32)


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, table: np.ndarray, at: int) -> np.ndarray:
    """One query at position `at`, over its own chunk."""
    keys, values = (x[table].reshape(-1, 8)[at // C * C : at + 1] for x in (k, v))
    weights = np.exp(keys @ q)
    return weights @ values / weights.sum()


def test_a_query_of_a_decode_step_sees_its_chunk() -> None:
    positions = np.array([0, 31, 32, 100, 127], np.int32)
    k, v, table = pages(len(positions))
    q = np.random.default_rng(1).standard_normal((len(positions), 1, 8)).astype(np.float32)
    view = within_chunks(View(jnp.asarray(table), jnp.asarray(positions), None), C, S)
    got = paged_decode(*map(jnp.asarray, (q, k, v)), view.page_table, view.positions, scale=1.0)
    want = [attend(q[b, 0], k, v, table[b], at) for b, at in enumerate(positions)]
    np.testing.assert_allclose(got[:, 0], np.stack(want), rtol=1e-5, atol=1e-6)
    assert view.page_table.shape == (5, C // S)


@pytest.mark.parametrize(
    "rows", [[(70, 0), (1, 40)], [(5, 30), (0, 0), (40, 61)], [(1, 31), (1, 32), (90, 33)]]
)
def test_queries_of_a_prompt_see_their_chunks(rows: list[tuple[int, int]]) -> None:
    count, before = np.array(rows).T
    start, T = np.cumsum(count) - count, int(count.sum()) + 3  # the last three are padding
    row = np.repeat(np.arange(len(rows)), count)
    positions = before[row] + np.arange(len(row)) - start[row]
    k, v, table = pages(len(rows))
    q = np.random.default_rng(1).standard_normal((T, 1, 8)).astype(np.float32)
    ints = (jnp.asarray(x, jnp.int32) for x in (start, count, np.pad(positions, (0, 3))))
    start, count, padded = ints
    whole = View(jnp.asarray(table), padded, query_blocks(start, count, T))
    view = within_chunks(whole, C, S)
    assert view.blocks is not None
    arrays = map(jnp.asarray, (q, k, v))
    got = ragged_attention(*arrays, view.page_table, view.positions, blocks=view.blocks, scale=1.0)
    want = [attend(q[t, 0], k, v, table[row[t]], at) for t, at in enumerate(positions)]
    np.testing.assert_allclose(got[: len(row), 0], np.stack(want), rtol=1e-5, atol=1e-6)


def test_pages_divide_chunks() -> None:
    table = jnp.zeros((1, 4), jnp.int32)
    with pytest.raises(UnsupportedError, match="pages of 64"):
        within_chunks(View(table, jnp.zeros(1, jnp.int32), None), 32, 64)
