"""The chunked formulations equal the specification, for decode and for packed chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import Backend, kv_write, paged_decode, query_blocks, ragged_attention
from pallas_kernels.attention.reference import attention_reference
from pallas_kernels.cache.quantise import QUANTISED, quantise
from pallas_kernels.errors import KernelError

CASES = {  # name: (N, K, H, S, options)
    "grouped": (8, 2, 32, 16, {}),
    "one kv head": (3, 1, 24, 16, {}),
    "multi-head": (4, 4, 16, 32, {}),
    "window": (4, 2, 16, 16, {"window": 20}),
    "softcap": (4, 2, 16, 16, {"softcap": 5.0}),
    "sinks": (4, 2, 16, 16, {"sinks": jnp.array([1.0, -2.0, 0.0, 4.0])}),
    "slopes": (4, 2, 16, 16, {"slopes": jnp.array([0.5, 0.25, 0.0, 1.0])}),
    "bias by distance": (4, 2, 16, 16, {"distance_bias": jnp.sin(jnp.arange(80.0)).reshape(4, 20)}),
    "window and softcap, big pages": (6, 2, 8, 64, {"window": 3, "softcap": 2.0}),
}


def pool(rng, rows, pages_a_row, K, S, H):
    """Pages of random keys and values, NaN in the sink, and a table that owns them shuffled."""
    count = rows * pages_a_row + 1
    shape = (count, K, S, H)
    table = 1 + rng.permutation(count - 1).reshape(rows, pages_a_row)
    k, v = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for _ in range(2))
    return k.at[0].set(jnp.nan), v.at[0].set(jnp.nan), jnp.asarray(table, jnp.int32)


def poison(k, v, table, lengths):
    """NaN in every slot past its row's length: what a page's last owner may have left there."""
    S = k.shape[2]
    for row, length in enumerate(lengths):
        for index, page in enumerate(np.asarray(table[row])):
            first = max(0, int(length) - index * S)
            k, v = (pages.at[page, :, first:].set(jnp.nan) for pages in (k, v))
    return k, v


@pytest.mark.parametrize("name", CASES)
def test_decode_equals_reference(name):
    N, K, H, S, options = CASES[name]
    rng = np.random.default_rng(0)
    positions = jnp.array([0, 1, S - 1, S, 3 * S + 2, 130], jnp.int32)
    B = len(positions)
    k, v, table = pool(rng, B, int(positions.max()) // S + 1, K, S, H)
    k, v = poison(k, v, table, positions + 1)
    q = jnp.asarray(rng.standard_normal((B, N, H)), jnp.float32)
    options = {"scale": H**-0.5, **options}
    want = attention_reference(q, k, v, table, jnp.arange(B), positions, **options)
    got = jax.jit(lambda *a: paged_decode(*a, **options))(q, k, v, table, positions)
    np.testing.assert_allclose(got, want, atol=2e-6)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "counts", [[1, 17, 0, 40, 16], [58, 0, 0, 0, 0], [0, 0, 0, 0, 0], [*[1] * 19, 21, 1, 0, 17]]
)
def test_ragged_equals_reference(name, counts):
    N, K, H, S, options = CASES[name]
    rng = np.random.default_rng(1)
    T, computed = 80, np.resize([100, 0, 5, 60, 31], len(counts))  # tokens in the cache, per row
    counts = np.array(counts)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    row = np.repeat(np.arange(len(counts)), counts)
    positions = np.zeros(T, np.int32)
    for b, (start, count) in enumerate(zip(starts, counts, strict=True)):
        positions[start : start + count] = computed[b] + np.arange(count)
    k, v, table = pool(rng, len(counts), int(positions.max()) // S + 1, K, S, H)
    k, v = poison(k, v, table, computed + counts)
    q = jnp.asarray(rng.standard_normal((T, N, H)), jnp.float32)
    blocks = query_blocks(jnp.asarray(starts, jnp.int32), jnp.asarray(counts, jnp.int32), T)
    options = {"scale": H**-0.5, **options}
    got = jax.jit(lambda *a, **b: ragged_attention(*a, **b, **options))(
        q, k, v, table, jnp.asarray(positions), blocks=blocks
    )
    assert bool(jnp.isfinite(got).all())  # padding too
    live = len(row)
    if live:
        rows, places = jnp.asarray(row, jnp.int32), jnp.asarray(positions[:live])
        want = attention_reference(q[:live], k, v, table, rows, places, **options)
        np.testing.assert_allclose(got[:live], want, atol=2e-6)


@pytest.mark.parametrize("dtype", QUANTISED)
@pytest.mark.parametrize("options", [{}, {"window": 20, "softcap": 5.0}])
def test_eight_bits_equal_reference(dtype, options):
    """Decode, and a ragged step of the same rows as chunks of one token."""
    K, S, H = 2, 16, 32
    rng = np.random.default_rng(3)
    positions = jnp.array([0, S, 77], jnp.int32)
    k, v, table = pool(rng, 3, 6, K, S, H)
    scales = {}
    spread = jnp.exp(2 * rng.standard_normal((*k.shape[:3], 1)))  # tokens of unequal magnitude
    (k, scales["k_scales"]), (v, scales["v_scales"]) = (quantise(x * spread, dtype) for x in (k, v))
    nothing = jnp.zeros(scales["k_scales"].shape)[..., None]  # what lies beyond a row's end
    beyond, _ = poison(nothing, nothing, table, positions + 1)
    scales = {name: x + beyond[..., 0] for name, x in scales.items()}
    q = jnp.asarray(rng.standard_normal((3, 4, H)), jnp.float32)
    options = {"scale": H**-0.5, **options, **scales}
    want = attention_reference(q, k, v, table, jnp.arange(3), positions, **options)
    assert bool(jnp.isfinite(want).all())
    got = paged_decode(q, k, v, table, positions, **options)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    blocks = query_blocks(jnp.arange(3), jnp.ones(3, jnp.int32), 3)
    got = ragged_attention(q, k, v, table, positions, blocks=blocks, **options)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_scales_are_what_the_specification_multiplies_by():
    rng = np.random.default_rng(4)
    k, v, table = pool(rng, 1, 2, 1, 16, 8)
    where = jnp.array([20], jnp.int32)
    q = jnp.asarray(rng.standard_normal((1, 2, 8)), jnp.float32)
    ones = jnp.ones(k.shape[:3])
    scaled = {"k_scales": 3 * ones, "v_scales": 5 * ones}
    got = attention_reference(q, k, v, table, jnp.arange(1), where, scale=0.3, **scaled)
    want = 5 * attention_reference(q, k, v, table, jnp.arange(1), where, scale=0.9)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_scales_that_are_missing_are_named():
    k, _, table = pool(np.random.default_rng(0), 1, 1, 1, 16, 8)
    ones, where = jnp.ones(k.shape[:3]), jnp.zeros(1, jnp.int32)
    for pages, scales in (
        (jnp.zeros(k.shape, jnp.int8), {}),
        (jnp.zeros(k.shape, jnp.int8), {"k_scales": ones}),
        (k, {"k_scales": ones, "v_scales": ones}),
        (k, {"v_scales": ones}),
    ):
        with pytest.raises(KernelError, match="come with k_scales and v_scales"):
            paged_decode(jnp.zeros((1, 1, 8)), pages, pages, table, where, scale=1.0, **scales)


def test_blocks_hold_each_token_once():
    start, count = jnp.array([0, 5, 5, 6]), jnp.array([5, 0, 1, 33])
    blocks = query_blocks(start, count, 48)
    tokens = np.asarray(blocks.tokens)
    assert sorted(tokens[tokens < 48]) == list(range(39))
    rows = np.repeat(np.asarray(blocks.rows)[:, None], tokens.shape[1], 1)[tokens < 48]
    assert list(rows) == [0] * 5 + [2] + [3] * 33
    places = np.asarray(blocks.places)[:39]
    assert list(tokens.reshape(-1)[places]) == list(range(39))


def test_write_drops_padding_and_keeps_the_rest():
    pages = jnp.zeros((3, 2, 4, 5))
    new = jnp.arange(1.0, 31.0).reshape(3, 2, 5)
    out = kv_write(pages, new, jnp.array([2, 3, 0]), jnp.array([1, 1, 3]))
    np.testing.assert_array_equal(out[2, :, 1], new[0])
    np.testing.assert_array_equal(out[0, :, 3], new[2])
    assert float(jnp.abs(out).sum()) == float(new[0].sum() + new[2].sum())


def test_write_is_in_place_when_donated():
    pages = jax.ShapeDtypeStruct((512, 2, 16, 32), jnp.float32)
    new = jax.ShapeDtypeStruct((8, 2, 32), jnp.float32)
    index = jax.ShapeDtypeStruct((8,), jnp.int32)
    compiled = jax.jit(kv_write, donate_argnums=0).lower(pages, new, index, index).compile()
    memory = compiled.memory_analysis()
    pool_bytes = 512 * 2 * 16 * 32 * 4
    assert memory.alias_size_in_bytes == pool_bytes
    assert memory.temp_size_in_bytes < pool_bytes / 8


def test_a_bias_by_distance_is_added_to_scores() -> None:
    """One head, keys of zeros: weights are the softmax of the bias alone."""
    k = jnp.zeros((2, 1, 16, 4))
    v = jnp.zeros((2, 1, 16, 4)).at[1, 0, 0].set(1.0)
    bias = jnp.array([[0.0, 0.0, 3.0]])
    out = paged_decode(
        jnp.ones((1, 1, 4)), k, v, jnp.array([[1]]), jnp.array([4], jnp.int32),
        scale=1.0, distance_bias=bias,
    )  # fmt: skip
    far = np.exp(3.0)
    np.testing.assert_allclose(out, far / (3 * far + 2), rtol=1e-6)  # 4, 3 and 2 back; 1 and 0


def test_kernels_for_gpus_refuse_a_bias_by_distance() -> None:
    with pytest.raises(KernelError, match="no bias by distance"):
        paged_decode(
            jnp.ones((1, 1, 64), jnp.bfloat16), jnp.zeros((2, 1, 64, 64), jnp.bfloat16),
            jnp.zeros((2, 1, 64, 64), jnp.bfloat16), jnp.array([[1]]), jnp.array([4], jnp.int32),
            scale=1.0, distance_bias=jnp.zeros((1, 8)), backend=Backend.MOSAIC,
        )  # fmt: skip
