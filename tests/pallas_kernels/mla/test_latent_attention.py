"""Latent attention on the CPU equals its specification, for decode and for packed chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import query_blocks
from pallas_kernels.mla import mla_decode, mla_ragged
from pallas_kernels.mla.reference import mla_reference

SIZES = {"value_dim": 32, "scale": 0.2}
H = 40


def pool(rng, lengths, S):
    """Shuffled pages; NaN in the sink and in every slot that no row has reached."""
    width = max(lengths) // S + 1
    count = len(lengths) * width + 1
    table = 1 + rng.permutation(count - 1).reshape(len(lengths), width)
    pages = np.full((count, S, H), np.nan, np.float32)
    for row, length in enumerate(lengths):
        for key in range(length):
            pages[table[row, key // S], key % S] = rng.standard_normal(H)
    return jnp.asarray(pages), jnp.asarray(table, jnp.int32)


@pytest.mark.parametrize("S", [16, 64])
def test_decode_equals_reference(S):
    rng = np.random.default_rng(0)
    positions = jnp.array([0, 1, S - 1, S, 130, -1], jnp.int32)
    pages, table = pool(rng, [int(p) + 1 for p in positions], S)
    q = jnp.asarray(rng.standard_normal((6, 3, H)), jnp.float32)
    got = jax.jit(lambda *a: mla_decode(*a, **SIZES))(q, pages, table, positions)
    want = mla_reference(q, pages, table, jnp.arange(6), positions, **SIZES)
    np.testing.assert_allclose(got[:-1], want[:-1], atol=2e-6)
    assert not got[-1].any()


@pytest.mark.parametrize("counts", [[1, 17, 0, 33], [51, 0, 0, 0], [0, 0, 0, 0]])
def test_ragged_equals_reference(counts):
    rng = np.random.default_rng(1)
    T, computed, counts = 60, np.array([40, 0, 5, 31]), np.array(counts)
    pages, table = pool(rng, list(computed + counts), 16)
    start = np.cumsum(counts) - counts
    row = np.repeat(np.arange(4), counts)
    positions = np.zeros(T, np.int32)
    positions[: len(row)] = computed[row] + np.arange(len(row)) - start[row]
    q = jnp.asarray(rng.standard_normal((T, 3, H)), jnp.float32)
    blocks = query_blocks(jnp.asarray(start, jnp.int32), jnp.asarray(counts, jnp.int32), T)
    got = jax.jit(lambda *a, **b: mla_ragged(*a, **b, **SIZES))(
        q, pages, table, jnp.asarray(positions), blocks=blocks
    )
    assert bool(jnp.isfinite(got).all())  # padding too
    n = len(row)
    if n == 0:
        return
    rows, places = jnp.asarray(row, jnp.int32), jnp.asarray(positions[:n])
    want = mla_reference(q[:n], pages, table, rows, places, **SIZES)
    np.testing.assert_allclose(got[:n], want, atol=2e-6)


def test_absorbing_the_projections_changes_nothing():
    """Scores of keys made by heads are scores of latents with queries turned the other way."""
    rng = np.random.default_rng(1)
    N, V, R, D, keys = 3, 8, 4, 6, 5  # heads, latent, rotary, key and value of a head
    latents, up_k, up_v = (rng.standard_normal(s) for s in ((keys, V + R), (N, V, D), (N, V, D)))
    q, q_rope = rng.standard_normal((N, D)), rng.standard_normal((N, R))
    made_k = np.einsum("jv,nvd->njd", latents[:, :V], up_k)
    scores = np.einsum("nd,njd->nj", q, made_k) + q_rope @ latents[:, V:].T
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    want = np.einsum("nj,njd->nd", weights, np.einsum("jv,nvd->njd", latents[:, :V], up_v))
    absorbed = np.concatenate([np.einsum("nd,nvd->nv", q, up_k), q_rope], -1)[None]
    pages = jnp.asarray(np.pad(latents, ((0, 3), (0, 0)))[None], jnp.float32)
    got = mla_reference(
        jnp.asarray(absorbed, jnp.float32), pages, jnp.zeros((1, 1), jnp.int32),
        jnp.zeros(1, jnp.int32), jnp.full(1, keys - 1, jnp.int32), scale=1.0, value_dim=V,
    )  # fmt: skip
    np.testing.assert_allclose(np.einsum("nv,nvd->nd", got[0], up_v), want, rtol=1e-4, atol=1e-5)
