"""When the tokens of a text were said: what the model's alignment heads attend to, made smooth.

    text ─ cross_weights ─ minus mean, over std of each position ─ median ─ mean of heads ─> [T, S]

One program, compiled at the start if the model names such heads; it runs beside the steps for who
asks, on the pages that the encoder wrote. What it gives is followed on the host, in the front.

Source: Whisper, arXiv 2212.04356, and the word times of its code.
"""

from functools import partial
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32

from engine.compiling.lowering import abstract_leaves, compiler_options, whole
from engine.compiling.memory import KVLayout
from engine.compiling.programs import Program
from engine.compiling.shapes import Shapes, StepShape
from engine.encoders.align_request import Aligned, AlignRequest
from engine.step import DeviceState
from engine.to_host import send_to_host
from models.checkpoints.loading import LoadedModel
from models.cross_weights import cross_weights
from models.layers.attention import EncodedRows, KVCache

_HEAD = 4  # entries of the packed input before the tokens: slot, first, count, positions


class Aligner:
    """The program of one engine."""

    def __init__(self, program: Program, mesh: Mesh) -> None:
        self.program = program
        self._mesh = mesh

    def run(
        self,
        leaves: tuple[Array, ...],
        state: DeviceState,
        slot: int,
        token_ids: list[int],
        asked: AlignRequest,
    ) -> Aligned:
        """Begin it for a prompt, whose encoder's pages are those of `slot`."""
        row = np.zeros(_HEAD + self.program.shape.tokens, np.int32)
        row[:_HEAD] = slot, asked.first, len(token_ids) - asked.first, asked.positions
        row[_HEAD : _HEAD + len(token_ids)] = token_ids
        smooth: Array = self.program.run(leaves, state.cache, state.encoded, row)
        send_to_host([smooth], self._mesh)
        return Aligned(smooth, asked)


def make_aligner(model: LoadedModel, shapes: Shapes, kv: KVLayout, state: Any) -> Aligner | None:
    """Compiled, for a model that hears and says which of its heads look where a token is said;
    `state` as `abstract_state` returns it."""
    encoder = model.config.encoder
    heads = model.alignment_heads
    if encoder is None or not encoder.mel_bins or not heads:
        return None

    def run(
        leaves: tuple[Array, ...], cache: KVCache, encoded: EncodedRows, packed: Array
    ) -> Array:
        (slot, first, count, positions), tokens = packed[:_HEAD], packed[_HEAD:]
        one = EncodedRows(encoded.page_table[slot][None], encoded.lengths[slot][None])
        decoder: Any = model.layout.unflatten(leaves)
        weights = cross_weights(decoder, tokens, one, cache, heads, pages_per_layer=kv.num_pages)
        return smoothed(weights, first, count, positions, width=encoder.median_filter_width)

    everywhere, start = whole(model.mesh), perf_counter()
    packed = jax.ShapeDtypeStruct((_HEAD + shapes.max_model_len,), np.int32, sharding=everywhere)
    leaves = abstract_leaves(model.layout.leaves, model.mesh)
    jitted = jax.jit(run, out_shardings=everywhere)
    lowered = jitted.lower(leaves, state.cache, state.encoded, packed)
    compiled = lowered.compile(compiler_options(model.mesh))
    shape = StepShape(shapes.max_model_len, 1, False, shapes.encoder_width, shapes.page_size)
    return Aligner(Program(shape, compiled, perf_counter() - start), model.mesh)


def smoothed(
    weights: Float32[Array, "A T S"],
    first: Int32[Array, ""],
    count: Int32[Array, ""],
    positions: Int32[Array, ""],
    *,
    width: int,
) -> Float32[Array, "T S"]:
    """One matrix of all heads; its rows first .. first + count and first `positions` count."""
    rows = jnp.arange(weights.shape[1])
    text = ((rows >= first) & (rows < first + count))[:, None]
    mean = jnp.where(text, weights, 0).sum(1, keepdims=True) / count
    spread = jnp.where(text, (weights - mean) ** 2, 0).sum(1, keepdims=True) / count
    normal = jnp.nan_to_num((weights - mean) / jnp.sqrt(spread), posinf=0.0, neginf=0.0)
    medians = jax.lax.map(partial(_median, length=positions, width=width), normal)
    return jnp.where(positions > width // 2, medians, normal).mean(0)


def _median(
    rows: Float32[Array, "T S"], *, length: Int32[Array, ""], width: int
) -> Float32[Array, "T S"]:
    """Of `width` neighbours; at the ends of the first `length` those lie mirrored."""
    place = jnp.arange(rows.shape[1])
    around = []
    for offset in range(-(width // 2), width // 2 + 1):
        there = jnp.abs(place + offset)
        there = jnp.where(there < length, there, 2 * (length - 1) - there)
        around.append(rows[:, jnp.clip(there, 0, rows.shape[1] - 1)])
    return jnp.sort(jnp.stack(around, -1), axis=-1)[..., width // 2]
