"""Runs batches of a decoder whose final hidden states are pooled.

Rows follow each other in one mixed step of the kernels that serve generation. The pages of such a
step belong to it alone: row b's are the next free ones, and nothing is kept.
"""

from collections import deque
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from engine.compiling.lowering import abstract_leaves, compiler_options, whole, zero_pages
from engine.compiling.memory import KVLayout, resolve_layout
from engine.compiling.programs import Programs
from engine.compiling.shapes import StepShape
from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.pooling.batch import LaunchedBatch, Waiting
from engine.pooling.shapes import PoolingShapes
from engine.to_host import send_to_host
from models.config.decoder import ModelConfig
from models.layers.attention import AttentionBatch, KVCache, mixed_batch
from models.pooling import pool_packed
from models.pooling_loading import LoadedPooler
from models.sharding import TENSOR


class DecoderRunner:
    """Requests are taken in their order, as many as a step holds."""

    def __init__(
        self, config: EngineConfig, model: LoadedPooler, decoder: ModelConfig, shapes: PoolingShapes
    ) -> None:
        largest = shapes.steps[-1]
        dtype = model.leaves[0].dtype
        one = resolve_layout(config, decoder, shapes, model.mesh, dtype)
        pages = 1 + largest.rows + largest.tokens // largest.page_size
        if one.states is not None:
            raise ConfigError(
                f"{decoder.architecture} keeps states, which give no vectors so far; use a model "
                "of attention only, or leave --runner pooling out."
            )
        self._kv = replace(one, num_pages=pages)
        self._model, self._shapes = model, shapes
        sharding = jax.sharding.NamedSharding(model.mesh, jax.sharding.PartitionSpec(None, TENSOR))
        self._abstract: Any = jax.tree.map(
            lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding),
            jax.eval_shape(partial(zero_pages, self._kv)),
        )
        make: Any = jax.jit(
            partial(zero_pages, self._kv),
            out_shardings=jax.tree.map(lambda _: sharding, self._abstract),
        )
        self._pages = make()
        self.programs = Programs(shapes, self._lower, compiler_options(model.mesh))

    @property
    def attention_backend(self) -> str:
        return self._kv.backend.value

    def take(self, waiting: deque[Waiting]) -> list[Waiting]:
        taken: list[Waiting] = []
        left = self._shapes.steps[-1].tokens
        while waiting and len(taken) < self._shapes.max_num_seqs:
            left -= waiting[0].num_tokens
            if left < 0:
                break
            taken.append(waiting.popleft())
        return taken

    def launch(self, requests: list[Waiting]) -> LaunchedBatch:
        counts = [each.num_tokens for each in requests]
        program = self.programs.find(sum(counts), decode=False)
        shape = program.shape
        packed = np.zeros(shape.tokens + shape.rows, np.int32)
        ids = [each.request.prompt_token_ids for each in requests]
        packed[: sum(counts)] = np.concatenate([np.asarray(one, np.int32) for one in ids])
        packed[shape.tokens : shape.tokens + len(counts)] = counts
        with self.programs.serving():
            self._pages, vectors = program.run(self._model.leaves, self._pages, packed)
        send_to_host([vectors], self._model.mesh)
        starts = [0, *accumulate(counts[:-1])] if self._model.spec.per_token else None
        return LaunchedBatch(requests, shape, vectors, starts)

    def close(self) -> None:
        self.programs.close()
        for array in (*self._model.leaves, *jax.tree.leaves(self._pages)):
            array.delete()

    def _lower(self, shape: StepShape) -> jax.stages.Lowered:
        model, kv = self._model, self._kv

        def run(leaves: tuple[Array, ...], pages: KVCache, packed: Array) -> tuple[KVCache, Array]:
            pooler = model.layout.unflatten(leaves)
            count = packed[shape.tokens :]
            start = jnp.cumsum(count) - count
            batch = _batch(start, count, shape, kv, model)
            hidden, pages = pooler.body(packed[: shape.tokens], batch.positions, batch, pages)
            pooled = pool_packed(hidden, batch.row, start, count, model.spec.pooling)
            return pages, pooler.finish(pooled)

        everywhere: Any = whole(model.mesh)
        held = jax.tree.map(lambda array: array.sharding, self._abstract)
        packed = jax.ShapeDtypeStruct((shape.tokens + shape.rows,), np.int32, sharding=everywhere)
        jitted = jax.jit(run, donate_argnums=1, out_shardings=(held, everywhere))
        leaves = abstract_leaves(model.layout.leaves, model.mesh)
        return jitted.lower(leaves, self._abstract, packed)


def _batch(
    start: Array, count: Array, shape: StepShape, kv: KVLayout, model: LoadedPooler
) -> AttentionBatch:
    """Rows of `count` tokens with the pages behind those of the rows before; page 0 is the sink."""
    owned = -(-count // shape.page_size)
    first = 1 + jnp.cumsum(owned) - owned
    table = first[:, None] + jnp.arange(shape.table_width)
    table = jnp.where(jnp.arange(shape.table_width) < owned[:, None], table, 0).astype(jnp.int32)
    token = jnp.arange(shape.tokens)
    row = jnp.searchsorted(start + count, token, side="right", method="compare_all")
    positions = token - start.at[row].get(mode="fill", fill_value=0)
    alive = row < shape.rows
    positions = jnp.where(alive, positions, 0).astype(jnp.int32)
    return mixed_batch(table, start, count, positions, kv.num_pages, model.mesh, kv.backend)
