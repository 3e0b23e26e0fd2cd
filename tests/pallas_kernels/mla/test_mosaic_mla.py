"""The Hopper kernel of latent attention equals its specification, in Mosaic's interpreter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.attention.query_blocks import query_blocks
from pallas_kernels.dispatch import Backend
from pallas_kernels.errors import KernelError
from pallas_kernels.mla.reference import mla_reference

if jax.__version_info__ < (0, 11):
    pytest.skip("Mosaic's interpreter needs JAX 0.11 for this kernel", allow_module_level=True)
pytest.importorskip("absl", reason="Mosaic GPU needs absl-py")

from pallas_kernels.mla.mosaic_mla import mosaic_mla_decode, mosaic_mla_ragged
from pallas_kernels.mla.sizes import LatentShape, check_latents, choose_splits

H, SCALE = 576, 192**-0.5


def pool(rng, lengths, S, dtype=jnp.bfloat16):
    """Shuffled pages; NaN in the sink and in every slot that no row has reached."""
    width = max(lengths) // S + 1
    count = len(lengths) * width + 1
    table = 1 + rng.permutation(count - 1).reshape(len(lengths), width)
    pages = np.full((count, S, H), np.nan, np.float32)
    for row, length in enumerate(lengths):
        for key in range(length):
            pages[table[row, key // S], key % S] = rng.standard_normal(H)
    return jnp.asarray(pages, dtype), jnp.asarray(table, jnp.int32)


@pytest.mark.parametrize(
    "N, S, splits, dtype", [(5, 16, 1, jnp.bfloat16), (128, 128, 2, jnp.float16)]
)
def test_decode_equals_reference(N, S, splits, dtype):
    rng = np.random.default_rng(0)
    where = jnp.array([0, S - 1, S, -1, 130][: 5 if N < 64 else 4], jnp.int32)
    B = len(where)
    pages, table = pool(rng, [int(p) + 1 for p in where], S, dtype)
    q = jnp.asarray(rng.standard_normal((B, N, H)), dtype)
    got = mosaic_mla_decode(q, pages, table, where, scale=SCALE, splits=splits, interpret=True)
    want = mla_reference(q, pages, table, jnp.arange(B), where, scale=SCALE, value_dim=512)
    want = jnp.where(where[:, None, None] < 0, 0.0, want.astype(jnp.float32))
    np.testing.assert_allclose(got.astype(jnp.float32), want, atol=0.03)


def test_ragged_equals_reference():
    rng = np.random.default_rng(1)
    computed, counts = np.array([30, 0, 63]), np.array([17, 0, 3])
    start, row = np.cumsum(counts) - counts, np.repeat(np.arange(3), counts)
    T, n = 22, 20
    positions = np.zeros(T, np.int32)
    positions[:n] = computed[row] + np.arange(n) - start[row]
    pages, table = pool(rng, list(computed + counts), 64)
    q = jnp.asarray(rng.standard_normal((T, 16, H)), jnp.bfloat16)
    blocks = query_blocks(jnp.asarray(start, jnp.int32), jnp.asarray(counts, jnp.int32), T)
    got = mosaic_mla_ragged(
        q, pages, table, jnp.asarray(positions), blocks=blocks, scale=SCALE, interpret=True
    )
    rows, where = jnp.asarray(row, jnp.int32), jnp.asarray(positions[:n])
    want = mla_reference(q[:n], pages, table, rows, where, scale=SCALE, value_dim=512)
    np.testing.assert_allclose(got[:n].astype(jnp.float32), want.astype(jnp.float32), atol=0.03)


@pytest.mark.parametrize(
    "change, limit",
    [
        ({"latent_dim": 288, "value_dim": 256}, r"512 \+ 64 columns, not 256 \+ 32"),
        ({"num_heads": 129}, "up to 128 query heads, not 129"),
        ({"page_size": 8}, "page size in .*, not 8"),
        ({"dtype": "float32"}, "bfloat16 or float16, not float32"),
    ],
)
def test_refuses_by_name(change, limit):
    shape = LatentShape(16, H, 512, 64, "bfloat16")._replace(**change)
    with pytest.raises(KernelError, match=limit):
        check_latents(shape, Backend.MOSAIC)
    check_latents(shape, Backend.XLA)


def test_splits_fill_the_gpu_and_no_more():
    assert choose_splits((64, 128, H), 4096, 132) == 1
    assert choose_splits((64, 16, H), 4096, 132) == 2
    assert choose_splits((1, 16, H), 65536, 132) == 64
    assert choose_splits((1, 16, H), 100, 132) == 1
