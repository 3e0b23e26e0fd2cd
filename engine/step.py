"""The step: one program from token ids to the next token ids, everything in between included.

    packed ─ unpack ─ tokens ─ embed ─ layers ⟷ KV pages ─ rows of logits ─ sample ─ write back

The state is donated and comes back updated in place; the host reads only what was sampled. The
same function serves both families of programs and every model.
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32

from engine.adapters.slots import NO_ADAPTER
from engine.compiling.shapes import StepShape
from engine.packing import FROM_SLOT, SAMPLE, StepInputs, unpack
from engine.sampling.logits_processors import LogitsProcessors
from engine.sampling.options import NUM_FIELDS, unpack_rows
from engine.sampling.sampler import Sampled, sample, write_back
from engine.sampling.state import SlotState, observe
from engine.vectors.prompt_embeds import GIVEN
from models.decoder import Decoder
from models.layers.attention import AttentionBatch, EncodedRows, KVCache, decode_batch, mixed_batch
from models.layers.given import Given
from models.layers.states import StateRows, States, state_rows
from models.sharding import is_cpu
from pallas_kernels import Backend
from pallas_kernels.state_space import Snapshots


class DeviceState(NamedTuple):
    """What lives on the device from step to step; slot R is the sink of padding."""

    cache: KVCache
    page_table: Int32[Array, "R1 MP"]
    last_token: Int32[Array, " R1"]  # what each slot sampled last
    slots: SlotState
    encoded: EncodedRows | None = None  # by slot; of models that have an encoder
    given: Float[Array, "E D"] | None = None  # embeddings of this step's tokens that have no id


def step(
    model: Decoder,
    state: DeviceState,
    packed: Int32[Array, " X"],
    *,
    shape: StepShape,
    pages_per_layer: int,
    mesh: Mesh,
    backend: Backend,
    sampler: Backend,
    processors: LogitsProcessors | None = None,
) -> tuple[DeviceState, Sampled]:
    """Compute the packed tokens and choose, or score, one token for each row of logits.

    A program of a window W > 1 does so W times, each time with what it chose before; its results
    have W in front of their axes, those of all programs do.
    """
    inputs = unpack(packed, shape)
    state = state._replace(page_table=_update_pages(state.page_table, inputs))
    turn = partial(
        _turn, model,
        shape=shape, pages_per_layer=pages_per_layer, mesh=mesh, backend=backend, sampler=sampler,
        processors=processors,
    )  # fmt: skip
    if shape.window == 1:
        state, sampled = turn(state, inputs)
        return state, jax.tree.map(lambda array: array[None], sampled)
    sink = state.last_token.shape[0] - 1
    # lowered once under a jit of its own; on a GPU unrolled, for a loop is not one CUDA graph
    again = jax.jit(lambda state, number: turn(state, _after(inputs, number, sink)))
    final: tuple[DeviceState, Sampled] = lax.scan(
        again, state, jnp.arange(shape.window), unroll=1 if is_cpu(mesh) else shape.window
    )
    return final


def _turn(
    model: Decoder,
    state: DeviceState,
    inputs: StepInputs,
    *,
    shape: StepShape,
    pages_per_layer: int,
    mesh: Mesh,
    backend: Backend,
    sampler: Backend,
    processors: LogitsProcessors | None = None,
) -> tuple[DeviceState, Sampled]:
    """One pass through the model: tokens in, a token for each row of logits out."""
    table = state.page_table
    batch = _attention_batch(inputs, table, shape, pages_per_layer, mesh, backend)
    batch = replace(batch, keeps_routed=shape.keeps_routed)
    if state.cache.states is not None:
        batch = replace(batch, states=_state_rows(inputs, state.cache.states, model))
    if inputs.adapter is not None:
        adapter = inputs.adapter.at[batch.row].get(mode="fill", fill_value=NO_ADAPTER)
        batch = replace(batch, adapter=adapter)
    if state.encoded is not None:
        rows = jax.tree.map(lambda array: array[inputs.slot], state.encoded)
        batch = replace(batch, encoded=rows)
    token_slot = inputs.slot.at[batch.row].get(mode="fill", fill_value=table.shape[0] - 1)
    tokens = jnp.where(inputs.tokens == FROM_SLOT, state.last_token[token_slot], inputs.tokens)

    given = _given(state, tokens)
    hidden, cache = model(tokens, inputs.positions, batch, state.cache, given)  # [T, D]
    logits = model.logits(hidden[inputs.logit_token])  # [B, V]

    slots = _observe(state.slots, inputs, tokens, batch)
    sampled = sample(
        logits,
        unpack_rows(inputs.fields),
        inputs.logit_slot,
        inputs.positions[inputs.logit_token] + 1,
        inputs.logit_target,
        slots,
        mesh,
        sampler,
        partial(processors.apply, fields=inputs.fields[NUM_FIELDS:]) if processors else None,
        shape.processed_logprobs,
    )
    if shape.keeps_logits and shape.window == 1:
        sampled = sampled._replace(logits=logits)
    if shape.keeps_hidden:
        sampled = sampled._replace(hidden=hidden)
    sampled, cache = sampled._replace(routed=cache.routed), cache._replace(routed=None)
    last_token = _write_back(state.last_token, inputs, sampled.tokens)
    return state._replace(cache=cache, last_token=last_token, slots=slots), sampled


def _given(state: DeviceState, tokens: Int32[Array, " T"]) -> Given | None:
    """The embeddings of tokens that have no id; None where all have one."""
    if state.given is None:
        return None
    return Given(tokens == GIVEN, state.given[: tokens.shape[0]])


def _after(inputs: StepInputs, turns: Int32[Array, ""], sink: int) -> StepInputs:
    """What a window's rows are to do after so many turns; `count` says how many a row has.

    A row without turns left is padding: it writes to no page and to no slot but the sink.
    """
    live = inputs.count > turns
    tokens = jnp.where(turns == 0, inputs.tokens, FROM_SLOT)
    return replace(
        inputs,
        tokens=tokens,
        positions=jnp.where(live, inputs.positions + turns, 0),
        count=live.astype(jnp.int32),
        slot=jnp.where(live, inputs.slot, sink),
        observed=jnp.where(live, inputs.observed, sink),
        logit_slot=jnp.where(live, inputs.logit_slot, sink),
    )


def _update_pages(table: Int32[Array, "R1 MP"], inputs: StepInputs) -> Int32[Array, "R1 MP"]:
    flat = table.reshape(-1).at[inputs.update_place].set(inputs.update_page, mode="drop")
    return flat.reshape(table.shape)


def _attention_batch(
    inputs: StepInputs,
    table: Array,
    shape: StepShape,
    pages_per_layer: int,
    mesh: Mesh,
    backend: Backend,
) -> AttentionBatch:
    rows = table[inputs.slot]  # [B, MP]
    if shape.decode:
        live = inputs.count > 0
        return decode_batch(rows, inputs.positions, live, pages_per_layer, mesh, backend)
    return mixed_batch(
        rows, inputs.start, inputs.count, inputs.positions, pages_per_layer, mesh, backend
    )


def _state_rows(inputs: StepInputs, states: States, model: Decoder) -> StateRows:
    slots_per_layer = states.conv.shape[0] // model.config.num_mixers
    rows = inputs.start, inputs.count, inputs.slot, inputs.positions
    kept = None
    if inputs.kept_after is not None and inputs.kept_slot is not None:
        kept = Snapshots(inputs.kept_after, inputs.kept_slot)
    return state_rows(*rows, slots_per_layer, inputs.source, kept)


def _observe(
    slots: SlotState, inputs: StepInputs, tokens: Int32[Array, " T"], batch: AttentionBatch
) -> SlotState:
    """Count the tokens that enter the model, for the rows whose sampling depends on them."""
    sink = slots.counts.shape[0] - 1
    token_slot = inputs.observed.at[batch.row].get(mode="fill", fill_value=sink)
    prompt_len = inputs.prompt_len.at[batch.row].get(mode="fill", fill_value=0)
    is_output = inputs.positions >= prompt_len
    slots = observe(
        slots, tokens, token_slot, is_output, inputs.observed, inputs.start, inputs.count
    )
    if slots.watermark is None:
        return slots
    ends = inputs.positions[inputs.start + inputs.count - 1] + 1
    ends = ends.at[batch.row].get(mode="fill", fill_value=0)
    remembered = slots.watermark.remember(tokens, token_slot, inputs.positions, ends, is_output)
    return slots._replace(watermark=remembered)


def _write_back(
    last_token: Int32[Array, " R1"], inputs: StepInputs, tokens: Int32[Array, " B"]
) -> Int32[Array, " R1"]:
    """Rows that sampled leave their token in their slot; scored rows write to the sink."""
    sink = last_token.shape[0] - 1
    place = jnp.where(inputs.logit_target == SAMPLE, inputs.logit_slot, sink)
    return write_back(last_token, place, tokens)


def new_state(
    cache: KVCache,
    slots: SlotState,
    given: Float[Array, "E D"] | None = None,
    *,
    num_slots: int,
    table_width: int,
    encoder_width: int = 0,
) -> DeviceState:
    """A state in which nothing is computed and every table entry is the sink page."""
    table = jnp.zeros((num_slots + 1, table_width), jnp.int32)
    nothing = jnp.zeros(num_slots + 1, jnp.int32)
    encoded = None
    if encoder_width:
        pages = jnp.zeros((num_slots + 1, encoder_width), jnp.int32)
        encoded = EncodedRows(pages, jnp.zeros_like(nothing))
    return DeviceState(cache, table, nothing, slots, encoded, given)
