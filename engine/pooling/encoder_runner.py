"""Runs batches of an encoder: rows of equal length in fixed shapes, computed at once, no cache."""

from collections import deque
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from engine.compiling.lowering import abstract_leaves, compiler_options, whole
from engine.compiling.programs import Program, Programs
from engine.compiling.shapes import StepShape
from engine.pooling.batch import LaunchedBatch, Waiting
from engine.pooling.shapes import PoolingShapes
from engine.to_host import send_to_host
from models.pooling import pool_rows
from models.pooling_loading import LoadedPooler


class EncoderRunner:
    """Requests of about one length share a batch; the queue's head decides which length."""

    def __init__(self, model: LoadedPooler, shapes: PoolingShapes) -> None:
        self._model = model
        self.programs = Programs(shapes, self._lower, compiler_options(model.mesh))

    def take(self, waiting: deque[Waiting]) -> list[Waiting]:
        shapes = self._shapes()  # read once: programs arrive from another thread meanwhile
        # not the smallest program's: 4 rows of 16 and 1 of 32 may be ready, and 1 of 16 not yet
        length = min(n for n in map(_row_length, shapes) if n >= waiting[0].num_tokens)
        most = max(s.rows for s in shapes if _row_length(s) == length)
        shorter = max((_row_length(s) for s in shapes if _row_length(s) < length), default=0)
        taken = [each for each in waiting if shorter < each.num_tokens <= length][:most]
        for each in taken:
            waiting.remove(each)
        return taken

    def launch(self, requests: list[Waiting]) -> LaunchedBatch:
        program = self._find(len(requests), max(each.num_tokens for each in requests))
        packed = _pack(requests, program.shape)
        with self.programs.serving():
            vectors = program.run(self._model.leaves, packed)
        send_to_host([vectors], self._model.mesh)
        length = _row_length(program.shape)
        starts = [row * length for row in range(len(requests))]
        per_token = self._model.spec.per_token
        return LaunchedBatch(requests, program.shape, vectors, starts if per_token else None)

    def close(self) -> None:
        self.programs.close()
        for array in self._model.leaves:
            array.delete()

    def _shapes(self) -> list[StepShape]:
        return [program.shape for program in self.programs.ready]

    def _find(self, rows: int, length: int) -> Program:
        programs = {program.shape: program for program in self.programs.ready}
        return programs[_smallest(list(programs), rows, length)]

    def _lower(self, shape: StepShape) -> jax.stages.Lowered:
        model, (B, S) = self._model, (shape.rows, _row_length(shape))

        def run(leaves: tuple[Array, ...], packed: Array) -> Array:
            pooler = model.layout.unflatten(leaves)
            tokens, types = packed[: 2 * B * S].reshape(2, B, S)
            lengths = packed[2 * B * S :]
            hidden = pooler.body(tokens, types, lengths)
            return pooler.finish(pool_rows(hidden, lengths, model.spec.pooling))

        everywhere: Any = whole(model.mesh)
        packed = jax.ShapeDtypeStruct((2 * B * S + B,), np.int32, sharding=everywhere)
        leaves = abstract_leaves(model.layout.leaves, model.mesh)
        return jax.jit(run, out_shardings=everywhere).lower(leaves, packed)


def _smallest(shapes: list[StepShape], rows: int, length: int) -> StepShape:
    fitting = [s for s in shapes if s.rows >= rows and _row_length(s) >= length]
    return min(fitting, key=lambda s: (s.tokens, s.rows))


def _row_length(shape: StepShape) -> int:
    return shape.tokens // shape.rows


def _pack(requests: list[Waiting], shape: StepShape) -> np.ndarray:
    """Tokens [B, S], types [B, S] and lengths [B] as one buffer."""
    B, S = shape.rows, _row_length(shape)
    packed = np.zeros(2 * B * S + B, np.int32)
    tokens, types = packed[: 2 * B * S].reshape(2, B, S)
    for row, each in enumerate(requests):
        ids, kinds = each.request.prompt_token_ids, each.request.token_type_ids
        tokens[row, : len(ids)] = ids
        types[row, : len(kinds)] = kinds
        packed[2 * B * S + row] = len(ids)
    return packed
