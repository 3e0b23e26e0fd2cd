"""Latent attention equals the specification; the specification equals attention by heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import mla_decode, mla_ragged, query_blocks
from pallas_kernels.dispatch import Backend
from pallas_kernels.errors import KernelError
from pallas_kernels.mla.groups import heads_of_block, tokens_of_a_row
from pallas_kernels.mla.reference import mla_reference
from pallas_kernels.mla.sizes import LatentShape, check_latents
from pallas_kernels.mla.splits import choose_splits
from tests.pallas_kernels.mla.pages import make_chunks, make_pages

SIZES = {"scale": 0.3, "value_dim": 20}
DEEPSEEK = LatentShape(576, 512, 64, jnp.bfloat16)


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


@pytest.mark.parametrize("S", [16, 64])
def test_decode_equals_reference(S):
    rng = np.random.default_rng(0)
    positions = jnp.array([0, 1, S - 1, S, 130, -1], jnp.int32)
    pages, table = make_pages(rng, [int(p) + 1 for p in positions], S, 24, jnp.float32)
    q = jnp.asarray(rng.standard_normal((6, 5, 24)), jnp.float32)
    got = jax.jit(lambda *a: mla_decode(*a, **SIZES))(q, pages, table, positions)
    want = mla_reference(q, pages, table, jnp.arange(6), positions, **SIZES)
    np.testing.assert_allclose(got[:-1], want[:-1], atol=2e-6)
    assert not got[-1].any()


@pytest.mark.parametrize("counts", [[1, 17, 0, 33], [0, 0, 0, 0]])
def test_ragged_equals_reference(counts):
    rng = np.random.default_rng(1)
    T, before = 60, [40, 0, 5, 31]
    start, count, row, positions = make_chunks(list(zip(counts, before, strict=True)))
    lengths = [a + b for a, b in zip(counts, before, strict=True)]
    pages, table = make_pages(rng, lengths, 16, 24, jnp.float32)
    q = jnp.asarray(rng.standard_normal((T, 3, 24)), jnp.float32)
    n = len(row)
    got = jax.jit(lambda *a, **b: mla_ragged(*a, **b, **SIZES))(
        q, pages, table, jnp.pad(positions, (0, T - n)), blocks=query_blocks(start, count, T)
    )
    assert bool(jnp.isfinite(got).all())  # padding too
    if n:
        want = mla_reference(q[:n], pages, table, row, positions, **SIZES)
        np.testing.assert_allclose(got[:n], want, atol=2e-6)


@pytest.mark.parametrize(
    "change, limit",
    [
        ({"latent_dim": 288, "value_dim": 256}, r"512 \+ 64 columns, not 256 \+ 32"),
        ({"page_size": 8}, "a page size in .*, not 8"),
        ({"dtype": jnp.float32}, "bfloat16 or float16, not float32"),
    ],
)
def test_refuses_by_name(change, limit):
    check_latents(DEEPSEEK, Backend.MOSAIC)
    check_latents(DEEPSEEK._replace(**change), Backend.XLA)
    with pytest.raises(KernelError, match=limit):
        check_latents(DEEPSEEK._replace(**change), Backend.MOSAIC)


def test_the_public_functions_refuse_too():
    rng = np.random.default_rng(2)
    pages, table = make_pages(rng, [3], 16, 24, jnp.float32)
    q, where = jnp.zeros((1, 2, 24)), jnp.array([2])
    blocks = query_blocks(jnp.array([0]), jnp.array([1]), 1)
    for kernel, options in ((mla_decode, {}), (mla_ragged, {"blocks": blocks})):
        with pytest.raises(KernelError, match=r"not 20 \+ 4"):
            kernel(q, pages, table, where, **options, **SIZES, backend=Backend.MOSAIC)


@pytest.mark.parametrize(
    "N, heads", [(1, 8), (8, 8), (10, 16), (20, 24), (40, 40), (64, 64), (96, 48), (128, 64)]
)
def test_heads_share_blocks_evenly(N, heads):
    assert heads_of_block(N) == heads


@pytest.mark.parametrize("each", [1, 4])
def test_groups_hold_each_token_once(each):
    """Rows of 5, 0, 1 and 33 tokens, of which those with one are left out."""
    start, count, row, positions = make_chunks([(5, 7), (0, 0), (1, 9), (33, 2)])
    T = 48
    blocks = query_blocks(start, count, T)
    groups = tokens_of_a_row(jnp.pad(positions, (0, T - 39)), blocks, each, least=2)
    rows, tokens = np.asarray(groups.members[:, 0]), np.asarray(groups.members[:, 1:])
    there = tokens < T
    assert sorted(tokens[there]) == [t for t in range(39) if row[t] != 2]
    for members, theirs, first in zip(tokens, rows, groups.oldest, strict=True):
        live = members[members < T]
        assert list(members[: len(live)]) == list(live)
        assert all(row[t] == theirs for t in live)
        assert first == (positions[live[0]] if len(live) else -1)


def test_splits_end_together():
    assert choose_splits(blocks=128, keys=4096, num_cores=132) == 1
    assert choose_splits(blocks=64, keys=4096, num_cores=132) == 2
    assert choose_splits(blocks=40, keys=4096, num_cores=132) == 3
    assert choose_splits(blocks=2, keys=131072, num_cores=132) == 64
    assert choose_splits(blocks=1, keys=60, num_cores=132) == 1
