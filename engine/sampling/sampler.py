"""The sampler: from a step's logits to its tokens, inside the step's program.

For each row, in vLLM's order:

 1. log-probabilities, of the logits as the model gave them, unless they are to be `processed`, of
    what 8 draws from or 7 compares; then the user's logits processors
 2. allowed_token_ids: all other tokens are banned
 3. bad_words: the last token of a word whose others were just generated is banned
 4. min_tokens: stop tokens are banned until enough was generated
 5. logit_bias is added
 6. repetition, frequency and presence penalty
 7. temperature 0: the likeliest token, the first of equals
 8. else divide by temperature, then min-p, top-k and top-p, each on what the one before left,
    and draw one by adding Gumbel noise (Gumbel 1954; Maddison et al. 2014) and taking the largest;
    with a watermark by the noise of its key and of the tokens before

A row whose logits are not numbers gives `NOT_A_NUMBER` in place of a token.

Where 2 to 4 leave nothing, 3 and 4 yield to 2. The noise depends on the row's seed, the token's
position and the token's id only: the same seed gives the same token in any batch. Steps that need
no part of this skip it: in a step of greedy rows without options only an argmax runs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Float32, Int32, Num

from engine.sampling.logit_edits import EDITS, edit, edit_if_asked, has
from engine.sampling.logprobs import Logprobs, compute_logprobs, no_logprobs
from engine.sampling.options import Flag, SamplingRows
from engine.sampling.state import SlotState
from models.sharding import TENSOR, on_each_device
from pallas_kernels import Backend, DrawRows, draw
from pallas_kernels.sampling import drawn_from, likeliest, pack_rows, unpack_rows

NOT_A_NUMBER = -1
_BLOCK = 8  # rows


class Sampled(NamedTuple):
    """A step's tokens. What follows means something only in rows that asked for logprobs."""

    tokens: Int32[Array, " B"]  # or NOT_A_NUMBER
    logprobs: Float32[Array, "B C"]  # C = 1 + MAX_LOGPROBS: the token's own, then the likeliest
    logprob_ids: Int32[Array, "B C"]
    ranks: Int32[Array, " B"]  # of the token; 1 is the likeliest
    scored: Float32[Array, "B S"]  # logprobs of `logprob_token_ids`
    logits: Float32[Array, "B V"] | None = None  # of a step of which rows may be sampled later
    hidden: Float[Array, "T D"] | None = None  # of all tokens of a step, where somebody may ask
    routed: Num[Array, "T L k"] | None = None  # their experts, likewise


def sample(
    logits: Float32[Array, "B V"],
    rows: SamplingRows,
    slots: Int32[Array, " B"],
    positions: Int32[Array, " B"],
    targets: Int32[Array, " B"],
    state: SlotState,
    mesh: Mesh | None = None,
    sampler: Backend = Backend.XLA,
    process: Callable[[Array], Array] | None = None,
    processed_logprobs: bool = False,
) -> Sampled:
    """Choose a token for each row, or score the one it has.

    `positions` are the indices in their sequences of the tokens to choose. `targets` -1 is choose;
    another value is that token with its log-probabilities (prompt_logprobs). `state` must have
    observed every token before. `sampler` is the version that draws: Mosaic's kernel, or XLA.
    `process` is what logits processors do. `processed_logprobs`: of chosen tokens they are; those
    of scored ones are the model's.
    """
    scored = targets >= 0
    rows = rows._replace(
        temperature=jnp.where(scored, 0.0, rows.temperature),
        flags=jnp.where(scored, int(Flag.LOGPROBS), rows.flags),
    )
    expired = jnp.where(positions >= rows.min_position, int(Flag.MIN_TOKENS), 0)
    rows = rows._replace(flags=rows.flags & ~expired)
    in_kernel = sampler is Backend.MOSAIC
    choose = partial(_choose_in_kernel, mesh=mesh) if in_kernel else _choose_by_xla
    processed = logits if process is None else process(logits)
    drawn = draw_rows(rows, slots, positions)
    if state.watermark is not None:
        drawn = state.watermark.keyed(drawn, has(rows.flags, Flag.WATERMARK))
    chosen = choose(processed, rows, drawn, state)
    # what is no number in a row of hidden states is in all of them behind the last norm, and so is
    # every logit: one says it
    chosen = jnp.where(jnp.isnan(logits[:, 0]), NOT_A_NUMBER, chosen)
    tokens = jnp.where(scored, targets, chosen)

    def compute(logits: Array, tokens: Array, slots: Array, ids: Array) -> Logprobs:
        if processed_logprobs:
            edited = edit_if_asked(processed, rows.flags, drawn.slot, state)
            left = drawn_from(edited, state.counts, drawn)
            logits = jnp.where(scored[:, None], logits, left)
        return compute_logprobs(logits, tokens, ids[slots])

    logprobs = lax.cond(
        jnp.any(has(rows.flags, Flag.LOGPROBS)),
        compute,
        lambda logits, *_: no_logprobs(logits.shape[0]),
        logits,
        tokens,
        # a part of an array would be copied; this is written where the tokens are
        lax.optimization_barrier(jnp.where(tokens < 0, 0, slots)),
        state.scored_ids,
    )
    return Sampled(tokens, logprobs.values, logprobs.ids, logprobs.ranks, logprobs.scored)


def write_back(
    last_token: Int32[Array, " R1"], slots: Int32[Array, " B"], tokens: Int32[Array, " B"]
) -> Int32[Array, " R1"]:
    """Slots with what they have just sampled, which the next step looks up: some token always."""
    return last_token.at[slots].set(jnp.maximum(tokens, 0))


def draw_rows(
    rows: SamplingRows, slots: Int32[Array, " B"], positions: Int32[Array, " B"]
) -> DrawRows:
    """What the drawing itself is to know of each row; a row without penalties has neutral ones."""
    penalised = has(rows.flags, Flag.PENALTIES)
    return DrawRows(
        temperature=rows.temperature,
        top_p=rows.top_p,
        min_p=rows.min_p,
        presence=jnp.where(penalised, rows.presence, 0.0),
        frequency=jnp.where(penalised, rows.frequency, 0.0),
        repetition=jnp.where(penalised, rows.repetition, 1.0),
        top_k=rows.top_k,
        slot=slots,
        position=positions,
        seed_high=rows.seed_high,
        seed_low=rows.seed_low,
    )


def _choose_by_xla(
    logits: Float32[Array, "B V"], rows: SamplingRows, drawn: DrawRows, state: SlotState
) -> Int32[Array, " B"]:
    """Steps 2 to 8. A CPU takes a few rows at a time: rows that are sampled later, and padding,
    lie together, and cost it nothing (24 rows of 32,064: 4.3 ms of a core; 8 of them draw: 1.6)."""
    blocks, rest = divmod(len(logits), _BLOCK)
    if rest or blocks < 2:
        return _choose(logits, rows, drawn, state)

    sink = state.counts.shape[0] - 1
    at_once = partial(_choose, state=state)

    def of_block(block: tuple[Array, SamplingRows, DrawRows]) -> Array:
        unused = jnp.all(block[2].slot == sink)
        chosen: Array = lax.cond(unused, lambda *_: jnp.zeros(_BLOCK, jnp.int32), at_once, *block)
        return chosen

    def in_blocks(*arrays: Any) -> Array:
        cut = jax.tree.map(lambda x: x.reshape(blocks, _BLOCK, *x.shape[1:]), arrays)
        found: Array = lax.map(of_block, cut)
        return found.reshape(-1)

    chosen: Array = lax.platform_dependent(logits, rows, drawn, cpu=in_blocks, default=at_once)
    return chosen


def _choose(
    logits: Float32[Array, "B V"], rows: SamplingRows, drawn: DrawRows, state: SlotState
) -> Int32[Array, " B"]:
    """The same for all rows at once, or an argmax where none needs more."""
    edits = jnp.any(has(rows.flags, EDITS))

    def with_options(logits: Float32[Array, "B V"], state: SlotState) -> Int32[Array, " B"]:
        logits = edit_if_asked(logits, rows.flags, drawn.slot, state)
        return draw(logits, state.counts, drawn, backend=Backend.XLA)

    chosen: Array = lax.cond(
        edits | jnp.any(has(rows.flags, Flag.PENALTIES) | (drawn.temperature > 0)),
        with_options,
        lambda logits, _: likeliest(logits),
        logits,
        state,
    )
    return chosen


def _choose_in_kernel(
    logits: Float32[Array, "B V"],
    rows: SamplingRows,
    drawn: DrawRows,
    state: SlotState,
    *,
    mesh: Mesh | None,
) -> Int32[Array, " B"]:
    """The same in one kernel; only steps 2 to 5 are XLA's.

    The kernel is in both branches: a branch that returned the logits unchanged would copy them.
    XLA copies each operand of a conditional that is a part of
    an array, so that the options go in as one.
    """
    run = _kernel(mesh)

    def edited(x: Array, state: SlotState, packed: Array, flags: Array) -> Array:
        options = unpack_rows(packed)
        return run(edit(x, flags, options.slot, state), state.counts, packed)

    def unedited(x: Array, state: SlotState, packed: Array, _: Array) -> Array:
        return run(x, state.counts, packed)

    edits = jnp.any(has(rows.flags, EDITS))
    packed = lax.optimization_barrier(pack_rows(drawn))
    chosen: Array = lax.cond(edits, edited, unedited, logits, state, packed, rows.flags)
    return chosen


def _kernel(mesh: Mesh | None) -> Callable[[Array, Array, Array], Array]:
    """Logits, counts, packed options to tokens, under an inner jit that has it lowered once.

    Each of several devices has a part of every row, and draws whole rows of its own: what it
    sends is its part of the others' rows. Too few rows for that are drawn by all.
    """

    def mine(x: Array, counts: Array, packed: Array) -> Array:
        axis, size, B = TENSOR, 1 if mesh is None else mesh.size, x.shape[0]
        if size > 1 and B % size:
            x = lax.all_gather(x, axis, axis=1, tiled=True)
        elif size > 1:
            x = lax.all_to_all(x, axis, split_axis=0, concat_axis=1, tiled=True)
            each = B // size
            packed = lax.dynamic_slice_in_dim(packed, lax.axis_index(axis) * each, each, axis=1)
        tokens = draw(x, counts, unpack_rows(packed), backend=Backend.MOSAIC)
        return tokens if len(tokens) == B else lax.all_gather(tokens, axis, tiled=True)

    whole, by_vocabulary = PartitionSpec(), PartitionSpec(None, TENSOR)
    return jax.jit(on_each_device(mine, mesh, (by_vocabulary, whole, whole), whole))
