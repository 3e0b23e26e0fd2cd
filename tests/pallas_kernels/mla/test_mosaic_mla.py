"""The Hopper kernel of latent attention equals the specification, in Mosaic's interpreter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pallas_kernels.attention.query_blocks import query_blocks
from pallas_kernels.dispatch import Backend
from pallas_kernels.mla.reference import mla_reference
from tests.pallas_kernels.mla.pages import make_chunks, make_pages

if jax.__version_info__ < (0, 11):
    pytest.skip("Mosaic's interpreter needs JAX 0.11 for this kernel", allow_module_level=True)
pytest.importorskip("absl", reason="Mosaic GPU needs absl-py")

from pallas_kernels.mla import latent_attention, mosaic_mla
from pallas_kernels.mla.mosaic_mla import mosaic_mla_decode, mosaic_mla_ragged

H, SIZES = 576, {"scale": 192**-0.5, "value_dim": 512}


def check_decode(positions, N, S, splits, dtype=jnp.bfloat16):
    rng = np.random.default_rng(0)
    pages, table = make_pages(rng, [p + 1 for p in positions], S, H, dtype)
    where = jnp.asarray(positions, jnp.int32)
    q = jnp.asarray(rng.standard_normal((len(positions), N, H)), dtype)
    got = mosaic_mla_decode(
        q, pages, table, where, scale=SIZES["scale"], splits=splits, interpret=True
    )
    want = mla_reference(q, pages, table, jnp.arange(len(positions)), where, **SIZES)
    want = jnp.where(where[:, None, None] < 0, 0.0, want.astype(jnp.float32))
    np.testing.assert_allclose(got.astype(jnp.float32), want, atol=0.03)


@pytest.mark.parametrize(
    "positions, N, S, splits, dtype",
    [
        ([0, 64, -1, 200], 8, 64, 1, jnp.bfloat16),  # slots are used again
        ([16, 130], 5, 16, 3, jnp.bfloat16),  # of 3 splits some are empty
        ([128], 72, 128, 1, jnp.float16),
    ],
)
def test_decode_equals_reference(positions, N, S, splits, dtype):
    check_decode(positions, N, S, splits, dtype)


def check_ragged(rows, N, S, *, least=1, padding=2):
    rng = np.random.default_rng(1)
    start, count, row, positions = make_chunks(rows)
    n, T = len(row), len(row) + padding
    pages, table = make_pages(rng, [sum(pair) for pair in rows], S, H, jnp.bfloat16)
    q = jnp.asarray(rng.standard_normal((T, N, H)), jnp.bfloat16)
    got = mosaic_mla_ragged(
        q, pages, table, jnp.pad(positions, (0, padding)), blocks=query_blocks(start, count, T),
        scale=SIZES["scale"], least=least, interpret=True,
    )  # fmt: skip
    assert got.shape == (T, N, 512)
    want = mla_reference(q[:n], pages, table, row, positions, **SIZES)
    got, want = (np.asarray(x, np.float32)[:n] for x in (got, want))
    mine = np.repeat(np.asarray(count) >= least, np.asarray(count))
    np.testing.assert_allclose(got[mine], want[mine], atol=0.03)


@pytest.mark.parametrize(
    "rows, N, S, least",
    [
        ([(5, 62), (0, 0), (3, 0)], 16, 64, 1),
        ([(3, 30), (1, 100)], 20, 32, 2),
        ([(2, 63)], 40, 16, 1),
    ],
)
def test_ragged_equals_reference(rows, N, S, least):
    check_ragged(rows, N, S, least=least)


@settings(max_examples=2, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 150)), min_size=1, max_size=2))
def test_any_rows(rows):
    check_ragged([(1, 0), *rows], 8, 64)


def test_rows_of_one_token_go_as_in_a_decode_step(monkeypatch):
    """With the specification in place of both kernels, which leave NaN where they are not asked."""
    rng = np.random.default_rng(2)
    rows = [(3, 10), (1, 40), (0, 5), (1, 0), (2, 7)]
    start, count, row, positions = make_chunks(rows)
    T = len(row)
    pages, table = make_pages(rng, [sum(pair) for pair in rows], 16, H, jnp.bfloat16)
    q = jnp.asarray(rng.standard_normal((T, 2, H)), jnp.bfloat16)

    def ragged(q, pages, table, where, *, blocks, scale, least):
        out = mla_reference(q, pages, table, row, where, **SIZES)
        return jnp.where((blocks.length >= least)[row][:, None, None], out, jnp.nan)

    def decode(q, pages, table, where, *, scale, splits):
        out = mla_reference(q, pages, table, jnp.arange(len(rows)), where, **SIZES)
        return jnp.where(where[:, None, None] >= 0, out, jnp.nan)

    monkeypatch.setattr(mosaic_mla, "mosaic_mla_ragged", ragged)
    monkeypatch.setattr(mosaic_mla, "mosaic_mla_decode", decode)
    monkeypatch.setattr(latent_attention, "decode_splits", lambda *sizes: 1)
    got = latent_attention.mla_ragged(
        q, pages, table, positions, blocks=query_blocks(start, count, T),
        **SIZES, backend=Backend.MOSAIC,
    )  # fmt: skip
    want = mla_reference(q, pages, table, row, positions, **SIZES)
    np.testing.assert_array_equal(got.astype(jnp.float32), want.astype(jnp.float32))
