"""One pool for layers of different heads: each byte has one owner, and each layer sees its own."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config.decoder import LayerKind, ModelConfig
from models.layers.attention import (
    AttentionBatch,
    KVCache,
    decode_batch,
    mixed_batch,
    paged_attention,
)
from models.pool import Pool, make_pool
from models.registry import find_architecture
from pallas_kernels import Backend
from pallas_kernels.cache.quantise import is_quantised
from tests.models.config.test_config import CONFIG
from tests.parity.cases import CASES

PAGES, SIZE = 5, 4
FP8, SCALE = "float8_e4m3fn", 0.3


def of_heads(*heads: tuple[int, int]) -> ModelConfig:
    """A model with a layer of each number and size of key/value heads."""
    kinds = tuple(LayerKind(kv_heads=count, head_dim=size) for count, size in heads)
    return replace(CONFIG, num_heads=12, num_kv_heads=12, layer_kinds=kinds)


def rows_of_page(pool: Pool, config: ModelConfig, layer: int, page: int, shards: int) -> range:
    """Numbers of the pool that hold a layer's page, as `paged_attention` finds it."""
    _, size = config.kv_heads_of(config.layer_kinds[layer])
    mine = config.cache_kv_heads(shards, config.layer_kinds[layer]) * size
    row = pool.heads * pool.head_dim
    place, part = divmod(pool.places[layer], row // mine)
    first = (place * PAGES + page) * row + part * mine
    return range(first, first + mine)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 6]), st.sampled_from([4, 6, 8, 16])),
             min_size=1, max_size=9),
    st.sampled_from([1, 2]),
)  # fmt: skip
def test_layers_share_rows_and_no_number(heads: list[tuple[int, int]], shards: int) -> None:
    config = of_heads(*(h for h in heads if shards % h[0] == 0 or h[0] % shards == 0), (4, 8))
    pool = make_pool(config, shards, Backend.XLA)
    row = pool.heads * pool.head_dim
    owned: set[int] = set()
    for layer in range(config.num_layers):
        for page in range(PAGES):
            numbers = rows_of_page(pool, config, layer, page, shards)
            assert owned.isdisjoint(numbers)
            owned.update(numbers)
            # who copies page p copies row p of each place
            assert {number // row % PAGES for number in numbers} == {page}
    assert max(owned) < pool.rows * PAGES * row
    assert pool.heads % shards == 0


def test_layers_that_are_alike_have_a_row_each() -> None:
    pool = make_pool(CONFIG, 1, Backend.XLA)
    assert pool == Pool(CONFIG.num_layers, 4, 8, tuple(range(CONFIG.num_layers)))
    wide = make_pool(CONFIG, 12, Backend.MOSAIC)
    assert (wide.heads, wide.head_dim) == (12, 64)


def full(kv_heads: int, full_heads: int, layers: int, every: int, own: int) -> ModelConfig:
    kinds = [
        LayerKind(kv_heads=full_heads, head_dim=512, shared=layer >= own)
        if (layer + 1) % every == 0
        else LayerKind(window=512, kv_heads=kv_heads, head_dim=256, shared=layer >= own)
        for layer in range(layers)
    ]
    return replace(CONFIG, num_heads=32, num_kv_heads=kv_heads, layer_kinds=tuple(kinds))


@pytest.mark.parametrize(
    ("config", "empty"),
    [
        (full(1, 1, 35, 5, 15), 0),  # Gemma 4 E2B
        (full(2, 2, 42, 6, 24), 0),  # E4B
        (full(16, 4, 60, 6, 60), 0),  # 31B
        (full(8, 2, 30, 6, 30), 1024),  # 26B-A4B: of 57,344
    ],
)
@pytest.mark.parametrize("backend", [Backend.XLA, Backend.MOSAIC])
def test_what_gemma_4_leaves_empty(config: ModelConfig, empty: int, backend: Backend) -> None:
    pool = make_pool(config, 1, backend)
    heads = (config.kv_heads_of(kind) for kind in config.layer_kinds if not kind.shared)
    needed = sum(count * size for count, size in heads)
    assert pool.rows * pool.heads * pool.head_dim - needed == empty


@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-5), ("int8", 0.05), (FP8, 0.2)])
def test_a_layer_reads_what_it_wrote(dtype: str, near: float) -> None:
    """Layers of three kinds of heads in one pool, 6 tokens and then, a step later, one more."""
    config = of_heads((2, 8), (1, 24), (4, 4), (1, 24))
    rng = np.random.default_rng(0)
    heads = [config.kv_heads_of(kind) for kind in config.layer_kinds]
    columns = [rng.normal(size=(7, (12 + 2 * count) * size)) for count, size in heads]
    pool = make_pool(config, 1, Backend.XLA)
    cache = empty(pool, dtype)
    table, positions = jnp.array([[3, 1]], jnp.int32), jnp.arange(7, dtype=jnp.int32)
    start, count = jnp.zeros(1, jnp.int32), jnp.full(1, 6, jnp.int32)
    first = mixed_batch(table, start, count, positions[:6], PAGES)
    second = decode_batch(table, positions[6:], jnp.ones(1, bool), PAGES)
    for batch, tokens in ((first, slice(0, 6)), (second, slice(6, 7))):
        given = [jnp.asarray(layer[tokens], jnp.float32) for layer in columns]
        found, cache = all_layers(config, pool, batch, cache, given)
        for layer, out in enumerate(found):
            wanted = attention(columns[layer], *heads[layer])[tokens]
            np.testing.assert_allclose(out, wanted, atol=near)


def all_layers(
    config: ModelConfig, pool: Pool, batch: AttentionBatch, cache: KVCache, columns: list[jax.Array]
) -> tuple[list[jax.Array], KVCache]:
    """What attention of each layer gives, one after the other, in one program."""

    def run(batch: AttentionBatch, cache: KVCache, columns: list[jax.Array]) -> Any:
        found = []
        for place, kind, qkv in zip(pool.places, config.layer_kinds, columns, strict=True):
            heads, size = config.kv_heads_of(kind)
            out, cache = paged_attention(
                batch, cache, jnp.int32(place), qkv, None, None,
                head_dim=size, kv_heads=heads, scale=SCALE,
            )  # fmt: skip
            found.append(out)
        return found, cache

    return jax.jit(run)(batch, cache, columns)


def attention(qkv: np.ndarray, heads: int, size: int) -> np.ndarray:
    """Causal attention of 12 query heads."""
    T = len(qkv)
    q, k, v = np.split(qkv, [12 * size, (12 + heads) * size], axis=1)
    q = q.reshape(T, heads, -1, size)
    k, v = k.reshape(T, heads, size), v.reshape(T, heads, size)
    scores = np.einsum("tkgh,jkh->kgtj", q, k) * SCALE
    weights = np.exp(scores) * np.tri(T)
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("kgtj,jkh->tkgh", weights, v).reshape(T, -1)


def empty(pool: Pool, dtype: str) -> KVCache:
    shape = (pool.rows * PAGES, pool.heads, SIZE, pool.head_dim)
    k, v = (jnp.full(shape, 100, dtype) for _ in "kv")
    if not is_quantised(dtype):
        return KVCache(k, v)
    return KVCache(k, v, *(jnp.full(shape[:3], jnp.nan, jnp.float32) for _ in "kv"))


@pytest.mark.parametrize("rows", [1, 2])
def test_no_copy_of_the_pool_is_made(rows: int) -> None:
    config = of_heads((2, 8), (1, 24), (1, 16))
    pool = make_pool(config, 1, Backend.XLA)
    shape = (pool.rows * 4096, pool.heads, SIZE, pool.head_dim)

    def step(cache: KVCache, columns: list[jax.Array]) -> KVCache:
        positions = jnp.zeros(rows, jnp.int32)
        batch = decode_batch(positions[:, None], positions, positions == 0, 4096)
        return all_layers(config, pool, batch, cache, columns)[1]

    pages = jax.ShapeDtypeStruct(shape, jnp.float32)
    heads = (config.kv_heads_of(kind) for kind in config.layer_kinds)
    columns = [
        jax.ShapeDtypeStruct((rows, (12 + 2 * count) * size), jnp.float32) for count, size in heads
    ]
    program = jax.jit(step, donate_argnums=0)
    memory = program.lower(KVCache(pages, pages), columns).compile().memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes == 2 * pages.size * 4
    assert memory.temp_size_in_bytes < pages.size / 20


def test_gemma_4_is_laid_out_so() -> None:
    """Two heads of 16 and one of 24: three layers of the first a row, four of the second."""
    raw = CASES["gemma4_12b"].config
    pool = make_pool(find_architecture(raw).config(raw), 1, Backend.XLA)
    assert pool == Pool(2, 12, 8, (0, 1, 4, 2, 5, 6))
