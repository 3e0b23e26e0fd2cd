"""Attention to chosen latents equals its specification, however a step is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import IndexQueries, choose_latents, mla_chosen, mla_decode, query_blocks
from pallas_kernels.mla import sparse
from pallas_kernels.mla.reference import mla_sparse_reference
from tests.pallas_kernels.mla.pages import make_chunks, make_pages

SIZES = {"scale": 0.3, "value_dim": 20}
N, H, HEADS, E, S = 3, 24, 5, 8, 16


@pytest.fixture
def _pieces(monkeypatch):
    """Of 16 tokens, and of two pages of keys."""
    monkeypatch.setattr(sparse, "_PIECE", 16)
    monkeypatch.setattr(sparse, "_CHUNK_SLOTS", 32)


def make(rng, T, lengths):
    """Queries, and two pools with one table."""
    pages, table = make_pages(rng, lengths, S, H + E, jnp.float32)
    q, index_q = (rng.standard_normal((T, heads, width)) for heads, width in ((N, H), (HEADS, E)))
    index = IndexQueries(
        jnp.asarray(index_q, jnp.float32), jnp.asarray(rng.standard_normal((T, HEADS)), jnp.float32)
    )
    return jnp.asarray(q, jnp.float32), pages[..., :H], index, pages[..., H:], table


def attend(blocks, top, *arrays):
    @jax.jit
    def run(q, pages, index, index_pages, table, positions, blocks):
        where = table, positions
        chosen = choose_latents(index, index_pages, *where, blocks=blocks, top=top)
        return mla_chosen(q, pages, chosen, *where, blocks=blocks, **SIZES)

    return run(*arrays, blocks)


def expected(row, top, q, pages, index, index_pages, table, positions):
    return mla_sparse_reference(
        q, pages, *index, index_pages, table, row, positions, top=top, **SIZES
    )


@pytest.mark.parametrize("top", [7, 32])
def test_decode_equals_reference(top):
    rng = np.random.default_rng(0)
    positions = jnp.array([0, 1, S - 1, S, 130, 39, 40, 75] * 3, jnp.int32)
    T = positions.size
    arrays = make(rng, T, [int(p) + 1 for p in positions])
    got = attend(None, top, *arrays, positions)
    np.testing.assert_allclose(got, expected(jnp.arange(T), top, *arrays, positions), atol=2e-6)


@pytest.mark.usefixtures("_pieces")
def test_ragged_equals_reference():
    rng, top = np.random.default_rng(1), 5
    T, counts, before = 60, [1, 17, 0, 33], [40, 0, 5, 31]
    start, count, row, positions = make_chunks(list(zip(counts, before, strict=True)))
    lengths = [a + b for a, b in zip(counts, before, strict=True)]
    arrays, n = make(rng, T, lengths), len(row)
    blocks = query_blocks(start, count, T)
    got = attend(blocks, top, *arrays, jnp.pad(positions, (0, T - n)))
    q, pages, index, index_pages, table = arrays
    index = IndexQueries(*(x[:n] for x in index))
    want = expected(row, top, q[:n], pages, index, index_pages, table, positions)
    np.testing.assert_allclose(got[:n], want, atol=2e-6)


def test_with_few_positions_before_it_a_step_is_that_of_all_latents():
    rng = np.random.default_rng(2)
    positions = jnp.array([3, 31, 0, 12], jnp.int32)
    q, pages, index, index_pages, table = make(rng, 4, [32] * 4)
    want = mla_decode(q, pages, table, positions, **SIZES)
    for top in (32, 100):  # the longest just fits; no row can be longer
        got = attend(None, top, q, pages, index, jnp.full_like(index_pages, jnp.nan), table,
                     positions)  # fmt: skip
        np.testing.assert_array_equal(got, want)


def test_of_equal_scores_the_earlier_are_seen():
    rng = np.random.default_rng(3)
    q, pages, index, index_pages, table = make(rng, 1, [40])
    nothing = jnp.where(jnp.isnan(index_pages), jnp.nan, 0.0)
    positions = jnp.array([39], jnp.int32)
    got = attend(None, 6, q, pages, index, nothing, table, positions)
    want = mla_decode(q, pages, table, jnp.array([5]), **SIZES)
    np.testing.assert_allclose(got, want, atol=2e-6)
