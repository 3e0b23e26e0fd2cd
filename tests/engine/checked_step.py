"""A step that says of each token it takes from a slot whether it is the right one.

A slot's newest token is kept as position * V + token, and is gone once it was taken: a row that
takes a token twice, or another row's, or one that its slot's last request left, finds another
position than its own, or nothing. The step then gives NOT_A_NUMBER for all its tokens, which ends
their requests.
"""

import jax.numpy as jnp

from engine.packing import FROM_SLOT, SAMPLE, unpack
from engine.sampling.late_sampling import sample_late
from engine.sampling.sampler import NOT_A_NUMBER
from engine.step import step
from models.layers.attention import mixed_batch

NONE = -1  # in place of a code


def checked_step(model, state, packed, *, shape, **others):
    inputs, vocab = unpack(packed, shape), state.slots.counts.shape[1]
    codes, sink = state.last_token, state.last_token.shape[0] - 1
    slot = _slot_of_each_token(inputs, shape, state.page_table, sink)
    taken = (inputs.tokens == FROM_SLOT) & (slot != sink)
    found = codes[slot]
    right = jnp.all(~taken | ((found >= 0) & (found // vocab == inputs.positions)))

    known = state._replace(last_token=jnp.maximum(codes, 0) % vocab)
    after, sampled = step(model, known, packed, shape=shape, **others)

    codes = codes.at[jnp.where(taken, slot, sink)].set(NONE)
    turns = inputs.count if shape.decode else jnp.ones_like(inputs.count)
    position = inputs.positions[inputs.logit_token] + turns
    written = jnp.where(inputs.logit_target == SAMPLE, inputs.logit_slot, sink)
    codes = codes.at[written].set(position * vocab + after.last_token[written])
    sampled = sampled._replace(tokens=jnp.where(right, sampled.tokens, NOT_A_NUMBER))
    return after._replace(last_token=codes), sampled


def checked_sample_late(last_token, slots, taken, packed, **others):
    """The same for rows that are sampled after their step: their slots hold earlier tokens only."""
    codes, vocab, slot, position = last_token, slots.counts.shape[1], packed[:, 1], packed[:, 2]
    is_row = slot != codes.shape[0] - 1
    right = jnp.all(~is_row | (codes[slot] < position * vocab))
    after, sampled = sample_late(codes, slots, taken, packed, **others)
    codes = codes.at[slot].set(jnp.where(is_row, position * vocab + after[slot], 0))
    return codes, sampled._replace(tokens=jnp.where(right, sampled.tokens, NOT_A_NUMBER))


def _slot_of_each_token(inputs, shape, table, sink):
    if shape.decode:
        return jnp.where(inputs.count > 0, inputs.slot, sink)
    batch = mixed_batch(table[inputs.slot], inputs.start, inputs.count, inputs.positions, 1)
    return inputs.slot.at[batch.row].get(mode="fill", fill_value=sink)
