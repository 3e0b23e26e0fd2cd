"""Latent attention equals the specification; the specification equals attention by heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.errors import KernelError
from pallas_kernels.mla import mla_decode
from pallas_kernels.mla.reference import mla_reference


def make(positions, N, H, S, dtype):
    """Pages in shuffled order; slots that no row has reached hold NaN."""
    rng = np.random.default_rng(0)
    B, width = len(positions), max(positions) // S + 2
    pages = rng.standard_normal((B * width + 1, S, H))
    table = 1 + rng.permutation(B * width).reshape(B, width)
    written = np.zeros(pages.shape[:2], bool)
    for b, last in enumerate(positions):
        places = np.arange(last + 1)
        written[table[b, places // S], places % S] = True
    pages[~written] = np.nan
    q = jnp.asarray(rng.standard_normal((B, N, H)), dtype)
    ints = (jnp.asarray(x, jnp.int32) for x in (table, positions))
    return q, jnp.asarray(pages, dtype), *ints


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


def test_decode_equals_reference():
    arrays = make([0, 15, 16, 130], 5, 24, 16, jnp.float32)
    options = {"scale": 0.3, "value_dim": 20}
    got = mla_decode(*arrays, **options)
    want = mla_reference(*arrays[:3], jnp.arange(4), arrays[3], **options)
    np.testing.assert_allclose(got, want, atol=2e-6)


@pytest.mark.parametrize("N, H, V, S, splits", [(4, 192, 128, 64, 1), (40, 128, 64, 16, 3)])
def test_hopper_kernel_equals_reference(N, H, V, S, splits):
    if jax.__version_info__ < (0, 11):
        pytest.skip("Mosaic's interpreter needs JAX 0.11 for this kernel")
    from pallas_kernels.attention.mosaic_decode import mosaic_decode

    q, pages, table, positions = make([0, 63, 64, 200], N, H, S, jnp.bfloat16)
    options = {"scale": H**-0.5, "value_dim": V}
    got = mosaic_decode(
        q, pages[:, None], None, table, positions, splits=splits, interpret=True, **options
    )
    want = mla_reference(q, pages, table, jnp.arange(4), positions, **options)
    np.testing.assert_allclose(got.astype(jnp.float32), want.astype(jnp.float32), atol=0.02)


def test_refuses_by_name():
    pytest.importorskip("absl")
    from pallas_kernels.dispatch import Backend

    arrays = make([3], 2, 288, 16, jnp.bfloat16)
    with pytest.raises(KernelError, match=r"a multiple of 64 up to 576 .*, not 288 and 256"):
        mla_decode(*arrays, scale=1.0, value_dim=256, backend=Backend.MOSAIC)
