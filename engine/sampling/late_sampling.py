"""Sampling after the step: rows whose mask was not known yet when their step began.

    step N ── logits [1, B, V] ── take ───┐        by 16 rows, so that no step's logits are kept
    packed ── slots, options ────── sample_late ──> tokens, and each in its slot for step N + 1

The same sampler, options and counts as in the step, so that a token is the same wherever it is
chosen. A row that is in no step between them finds its slot as its own step left it. Owns these
programs and the packed input, one int32 array [N, 3 + F + W] for N rows:

    row          of what was taken
    slot         the request's, or R (the sink) for padding
    position     of the token to be chosen, in its sequence
    fields       F sampling options, and what logits processors are told
    words        W that say which tokens the row's grammar allows, a bit a token
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32

from engine.compiling.shapes import StepShape
from engine.packing import SAMPLE, Ints, SlotColumns
from engine.sampling.late_rows import LateRow
from engine.sampling.logits_processors import LogitsProcessors
from engine.sampling.options import NUM_FIELDS, Field, Flag, unpack_rows
from engine.sampling.sampler import Sampled, sample, write_back
from engine.sampling.state import SlotState
from pallas_kernels import Backend

_HEAD = 3  # entries before the fields


def packed_late_shape(shape: StepShape, num_words: int) -> tuple[int, int]:
    """Of what `pack_late` returns."""
    return shape.tokens, _HEAD + NUM_FIELDS + shape.extra_fields + num_words


def pack_late(
    rows: Sequence[LateRow], shape: StepShape, columns: SlotColumns, num_words: int
) -> Ints:
    """At most `shape.tokens` rows, taken together, for `sample_late`."""
    packed = np.zeros(packed_late_shape(shape, num_words), np.int32)
    packed[:, 1].fill(columns.sink)
    for entry, each in zip(packed, rows, strict=False):
        request = each.request
        if request.slot is None or request.constraint is None:
            raise RuntimeError("a request without a slot, or a grammar, was to be sampled")
        entry[:_HEAD] = each.row, request.slot, request.num_computed
        entry[-num_words:] = request.constraint.mask
    fields = packed[:, _HEAD:-num_words]
    fields[:] = columns.options.T[packed[:, 1]]
    fields[: len(rows), Field.FLAGS] |= Flag.ALLOWED
    return packed


def pack_taken(rows: Sequence[int], shape: StepShape) -> Ints:
    """Rows of a step's logits for `take`, at most `shape.tokens`."""
    places = np.zeros(shape.tokens, np.int32)
    places[: len(rows)] = rows
    return places


def take(logits: Float32[Array, "1 B V"], places: Int32[Array, " N"]) -> Float32[Array, "N V"]:
    """Some rows of a step's logits."""
    return logits[0, places]


def sample_late(
    last_token: Int32[Array, " R1"],
    slots: SlotState,
    taken: Float32[Array, "M V"],
    packed: Int32[Array, "N X"],
    *,
    mesh: Mesh,
    sampler: Backend,
    processors: LogitsProcessors | None = None,
    processed_logprobs: bool = False,
) -> tuple[Int32[Array, " R1"], Sampled]:
    """Choose a token for each packed row, and write it to its slot; results are as a step's."""
    row, slot, position = packed[:, :_HEAD].T
    words = lax.bitcast_convert_type(packed[:, -slots.allowed.shape[1] :], jnp.uint32)
    slots = slots._replace(allowed=slots.allowed.at[slot].set(words))
    fields = packed[:, _HEAD : -words.shape[1]].T
    sampled = sample(
        taken[row],
        unpack_rows(fields),
        slot,
        position,
        jnp.full_like(slot, SAMPLE),
        slots,
        mesh,
        sampler,
        partial(processors.apply, fields=fields[NUM_FIELDS:]) if processors else None,
        processed_logprobs,
    )
    last_token = write_back(last_token, slot, sampled.tokens)
    return last_token, jax.tree.map(lambda array: array[None], sampled)
