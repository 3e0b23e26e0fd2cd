"""The paged cache as a layer sees it: write this step's keys and values, then attend.

Owns the arithmetic between rows, layers and pages. Knows nothing of projections, frequencies or
requests.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Float32, Int32, Num

from models.layers.chunks import View, within_chunks
from models.layers.states import StateRows, States
from models.sharding import TENSOR, on_each_device
from pallas_kernels import (
    Backend,
    HeadNorms,
    IndexQueries,
    Pages,
    QueryBlocks,
    Turn,
    choose_latents,
    kv_write,
    mla_chosen,
    mla_decode,
    mla_ragged,
    paged_decode,
    qkv_write,
    query_blocks,
    ragged_attention,
)
from pallas_kernels.attention.limits import page_head_dim


class KVCache(NamedTuple):
    """Keys and values of all layers that have them; page p is each row l * P + p. Donated, never
    sliced. A layer whose heads are others sees these rows as pages of its own: `models/pool.py`.

    Latents, which are both, lie in `k` with K = 1, once for each shard; their index keys likewise.
    Keys and values of eight bits have scales, one for each token and head.
    """

    k: Num[Array, "LP K S H"]
    v: Num[Array, "LP K S H"] | None
    k_scales: Float32[Array, "LP K S"] | None = None
    v_scales: Float32[Array, "LP K S"] | None = None
    states: States | None = None  # of layers that have a state
    index_keys: Num[Array, "LP K S E"] | None = None  # keys by which latents are chosen
    chosen: Int32[Array, "T W"] | None = None  # between layers only: positions a token sees
    # out of a layer only: experts that a token takes; of all layers out of a decoder
    routed: Num[Array, "T *L k"] | None = None

    @property
    def page_size(self) -> int:
        return self.k.shape[2]


class Indexed(NamedTuple):
    """By what the latents are chosen that a token sees: `top` of them.

    Without queries and keys those are seen that the layer before has kept.
    """

    queries: IndexQueries | None
    keys: Float[Array, "T E"] | None  # of this step's tokens
    top: int
    kept: bool  # for layers behind


class EncodedRows(NamedTuple):
    """Where the encoder's keys and values of each row lie, which all of its tokens see."""

    page_table: Int32[Array, "B MX"]
    lengths: Int32[Array, " B"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AttentionBatch:
    """How the tokens of one step see the cache."""

    page_table: Int32[Array, "B MP"]  # page of each row's slots 0..S-1, S..2S-1, ...
    row: Int32[Array, " T"]  # row of each token; B for padding
    positions: Int32[Array, " T"]  # place of each token in its sequence
    blocks: QueryBlocks | None  # None in a decode step, where token t is row t
    pages_per_layer: int = field(metadata={"static": True})
    mesh: Mesh | None = field(metadata={"static": True}, default=None)
    backend: Backend = field(metadata={"static": True}, default=Backend.XLA)
    states: StateRows | None = None  # where layers with a state find them
    encoded: EncodedRows | None = None  # of models that have an encoder
    distance_bias: Float32[Array, "N R"] | None = None  # of scores, by how far back a key lies
    adapter: Int32[Array, " T"] | None = None  # each token's slot; of models with adapters
    keeps_routed: bool = field(metadata={"static": True}, default=False)  # experts are told


def decode_batch(
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " B"],
    live: Array,
    pages_per_layer: int,
    mesh: Mesh | None = None,
    backend: Backend = Backend.XLA,
) -> AttentionBatch:
    """One token a row; rows that are not `live` write nothing."""
    B = positions.shape[0]
    row = jnp.where(live, jnp.arange(B), B)
    return AttentionBatch(page_table, row, positions, None, pages_per_layer, mesh, backend)


def mixed_batch(
    page_table: Int32[Array, "B MP"],
    start: Int32[Array, " B"],
    count: Int32[Array, " B"],
    positions: Int32[Array, " T"],
    pages_per_layer: int,
    mesh: Mesh | None = None,
    backend: Backend = Backend.XLA,
) -> AttentionBatch:
    """Rows of any length, packed in order: row b owns tokens start[b] .. start[b]+count[b]-1."""
    T, B = positions.shape[0], start.shape[0]
    token = jnp.arange(T)
    row = jnp.searchsorted(start + count, token, side="right", method="compare_all").astype(
        jnp.int32
    )
    row = jnp.where(token < (start + count)[-1], row, B)
    blocks = query_blocks(start, count, T)
    return AttentionBatch(page_table, row, positions, blocks, pages_per_layer, mesh, backend)


def paged_attention(
    batch: AttentionBatch,
    cache: KVCache,
    layer: Int32[Array, ""],
    qkv: Float[Array, "T columns"],
    turn: Turn | None,
    norms: HeadNorms | None,
    factor: Float32[Array, "..."] | None = None,
    *,
    head_dim: int,
    kv_heads: int | None = None,
    scale: float,
    window: int | None = None,
    chunk: int | None = None,
    softcap: float | None = None,
    write: bool = True,
    sinks: Float[Array, " N"] | None = None,
    slopes: Float[Array, " N"] | None = None,
) -> tuple[Float[Array, "T NH"], KVCache]:
    """Write the keys and values of this layer, then attend causally over each token's row.

    Without `write` those of the layer lie there already, and what `qkv` holds of them is not read.
    Where layers differ in their heads, `kv_heads` are this one's, on all devices.
    `qkv` holds the columns of shard after shard, each its queries, keys and values. Queries and
    keys are normed and rotated; scores are multiplied by `factor`, one number or one a token. Each
    shard holds some of the heads and needs nothing of the others, so under a mesh this is a
    `shard_map` without communication.
    """
    here = partial(
        _attend,
        head_dim=head_dim,
        kv_heads=kv_heads and kv_heads // (1 if batch.mesh is None else batch.mesh.size),
        scale=scale,
        window=window,
        chunk=chunk,
        softcap=softcap,
        write=write,
    )
    whole, heads, each_head = PartitionSpec(), PartitionSpec(None, TENSOR), PartitionSpec(TENSOR)
    specs = (whole, heads, whole, heads, whole, whole, whole, each_head, each_head)
    attend = on_each_device(here, batch.mesh, specs, (heads, heads))
    states, batch = cache.states, replace(batch, states=None)
    pages = cache._replace(states=None)
    out, pages = attend(batch, pages, layer, qkv, turn, norms, factor, sinks, slopes)
    return out, pages._replace(states=states)


def latent_attention(
    batch: AttentionBatch,
    cache: KVCache,
    layer: Int32[Array, ""],
    q: Float[Array, "T N H"],
    latent: Float[Array, "T H"],
    indexed: Indexed | None = None,
    *,
    scale: float,
    value_dim: int,
) -> tuple[Float[Array, "T N V"], KVCache]:
    """Write the latents of this layer into the cache, then attend causally over each token's row,
    or over what is chosen of it.

    Every shard has some of the queries' heads, and all latents.
    """
    here = partial(
        _attend_latents,
        top=None if indexed is None else indexed.top,
        kept=indexed is not None and indexed.kept,
        scale=scale,
        value_dim=value_dim,
    )
    whole, heads = PartitionSpec(), PartitionSpec(None, TENSOR)
    specs = (whole, heads, whole, heads, whole, whole, whole, whole)
    attend = on_each_device(here, batch.mesh, specs, (heads, heads, whole))
    queries, keys = (None, None) if indexed is None else indexed[:2]
    pages = cache._replace(states=None, chosen=None)
    out, pages, chosen = attend(
        replace(batch, states=None), pages, layer, q, latent, queries, keys, cache.chosen
    )
    return out, pages._replace(states=cache.states, chosen=chosen)


def _attend_latents(
    batch: AttentionBatch,
    cache: KVCache,
    layer: Array,
    q: Array,
    latent: Array,
    queries: IndexQueries | None,
    keys: Array | None,
    chosen: Array | None,
    *,
    top: int | None,
    kept: bool,
    scale: float,
    value_dim: int,
) -> tuple[Array, KVCache, Array | None]:
    table, page, slot = _places(batch, layer, cache.k, 1)
    pages = kv_write(cache.k, latent[:, None], page, slot)
    cache, blocks = cache._replace(k=pages), batch.blocks
    sizes: dict[str, Any] = {"scale": scale, "value_dim": value_dim, "backend": batch.backend}
    where = table, batch.positions
    if top is None:
        kernel = mla_decode if blocks is None else partial(mla_ragged, blocks=blocks)
        return kernel(q, pages[:, 0], *where, **sizes), cache, None
    if queries is not None and keys is not None and cache.index_keys is not None:
        index = kv_write(cache.index_keys, keys[:, None], page, slot)
        cache = cache._replace(index_keys=index)
        chosen = choose_latents(queries, index[:, 0], *where, blocks=blocks, top=top)
    if chosen is None:
        raise TypeError("nothing says which latents are seen: no index keys, nothing kept")
    out = mla_chosen(q, pages[:, 0], chosen, *where, blocks=blocks, **sizes)
    return out, cache, chosen if kept else None


def _seen_by(cache: KVCache, kv_heads: int, width: int) -> tuple[KVCache, int]:
    """The pool as pages of so many heads of this width; and how many of them make one of its rows.

    Of scales each page has as many heads as there are numbers for: those behind `kv_heads` are not
    used.
    """
    rows, heads, size, entries = cache.k.shape
    parts = heads * entries // (kv_heads * width)

    def seen(array: Array) -> Array:
        return array.reshape(rows * parts, -1, size, *(width,) * (array.ndim - 3))

    return jax.tree.map(seen, cache), parts


def _places(
    batch: AttentionBatch, layer: Array, pages: Array, parts: int
) -> tuple[Array, Array, Array]:
    """This layer's page table; page and slot of each token, of padding a page past the end."""
    size = pages.shape[2]
    if parts == 1:
        table = batch.page_table + layer * batch.pages_per_layer
    else:  # the layer is one of those that share a row
        row, part = layer // parts, layer % parts
        table = (batch.page_table + row * batch.pages_per_layer) * parts + part
    page = table.at[batch.row, batch.positions // size].get(mode="fill", fill_value=pages.shape[0])
    return table, page, batch.positions % size


def _attend(
    batch: AttentionBatch,
    cache: KVCache,
    layer: Array,
    qkv: Array,
    turn: Turn | None,
    norms: HeadNorms | None,
    factor: Array | None,
    sinks: Array | None,
    slopes: Array | None,
    *,
    head_dim: int,
    kv_heads: int | None,
    scale: float,
    window: int | None,
    chunk: int | None,
    softcap: float | None,
    write: bool,
) -> tuple[Array, KVCache]:
    mine, parts = cache, 1
    if kv_heads is not None:
        mine, parts = _seen_by(cache, kv_heads, page_head_dim(head_dim, batch.backend))
    if mine.v is None:
        raise TypeError("a cache of latents has no values: use latent_attention")
    table, page, slot = _places(batch, layer, mine.k, parts)
    if not write:
        page = jnp.full_like(page, mine.k.shape[0])  # past the end, as that of padding
    T, tokens = qkv.shape[0], (qkv, turn, page, slot)
    if T == 1 and kv_heads is not None and batch.backend is Backend.XLA:
        # of one row XLA makes a slice update, and copies a pool that layers see differently
        qkv, turn, page, slot = jax.tree.map(lambda x: jnp.concatenate([x, x]), tokens)
        page = page.at[1].set(mine.k.shape[0])
    # heads may be wider in pages, with zeros behind them; so are then the queries
    q, pages = qkv_write(
        qkv, Pages(mine.k, mine.v, mine.k_scales, mine.v_scales), page, slot,
        head_dim=head_dim, turn=turn, norms=norms, backend=batch.backend,
    )  # fmt: skip
    q = q[:T]
    if factor is not None:
        q = (q * factor[..., None, None]).astype(q.dtype)
    rows = View(table, batch.positions, batch.blocks)
    if chunk is not None:
        rows = within_chunks(rows, chunk, cache.page_size)
    blocks = rows.blocks
    kernel = paged_decode if blocks is None else partial(ragged_attention, blocks=blocks)
    out = kernel(
        q, pages.k, pages.v, rows.page_table, rows.positions,
        scale=scale, window=window, softcap=softcap, sinks=sinks, slopes=slopes,
        k_scales=pages.k_scales, v_scales=pages.v_scales, distance_bias=batch.distance_bias,
        backend=batch.backend,
    )  # fmt: skip
    written = jax.tree.map(lambda array, like: array.reshape(like.shape), KVCache(*pages), cache)
    return out[..., :head_dim].reshape(out.shape[0], -1), written
