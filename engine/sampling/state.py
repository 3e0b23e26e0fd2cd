"""What sampling remembers on the device for each slot: token counts, recent tokens, option lists.

A request that needs any of it (`needs_admission`) is written into its slot once, by `admit`; after
that `observe` counts what it generates. A request that needs none is never written, and its slot
may hold what an earlier one left: its flags keep that from being read. Slot R is the sink of
padding.

    pack_options ─ one int32 array ─ admit        when a request enters its slot (rare)
    step's tokens ─────────────────── observe      every step, O(T), in place
    counts, lists ─────────────────── logit_edits  in the steps that need them

The prompt is counted at admission and not as its tokens enter the model, so that a prompt found in
a prefix cache counts as well. Generated tokens count as they enter, each exactly once.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float32, Int32, UInt32
from numpy.typing import NDArray

from engine.errors import RequestError
from engine.sampling.params import (
    MAX_BAD_WORD_TOKENS,
    MAX_BAD_WORDS,
    MAX_LOGIT_BIAS,
    MAX_LOGPROB_TOKEN_IDS,
    MAX_STOP_TOKEN_IDS,
    SamplingParams,
)
from engine.sampling.speech_times import SpeechTimes
from engine.watermarking.contexts import Watermark, Widths, no_watermark
from pallas_kernels.sampling.rows import COUNT_BITS

MAX_BAD_WORD_SEQUENCES = 2 * MAX_BAD_WORDS  # a word is spelled with and without a space before it
MAX_EOS_IDS = 16  # end-of-text ids that a model may have
MAX_STOP_IDS = MAX_STOP_TOKEN_IDS + MAX_EOS_IDS  # a request's own, and the model's
MAX_RECENT = MAX_BAD_WORD_TOKENS - 1
IN_PROMPT = 1 << COUNT_BITS
NO_TOKEN = -1
Ints = NDArray[np.int32]


class SlotState(NamedTuple):
    """R slots and the sink. Donated to every step and updated in place.

    Bytes a slot: 4V counts, V/8 allowed and 17,244 of lists; 8 and 4 for each token that a
    watermark looks back, if there is one. For R = 256 and V = 152,064 that is
    158 MiB, 149 of them counts. int32 because a count may reach the context's length, which
    passes the 15 bits that int16 would leave beside the prompt's bit, and because 32-bit atomics
    are the ones that GPUs add with.
    """

    counts: Int32[Array, "R1 V"]  # times generated; bit 30: the token is in the prompt
    bias_ids: Int32[Array, "R1 E"]  # V where unused
    bias_values: Float32[Array, "R1 E"]
    allowed: UInt32[Array, "R1 W"]  # bit v % 32 of word v // 32: token v may be chosen
    stop_ids: Int32[Array, "R1 Z"]  # V where unused
    scored_ids: Int32[Array, "R1 S"]  # those of logprob_token_ids, in order; V where unused
    bad_words: Int32[Array, "R1 Q L"]  # [-1 -1 a b c]: c is banned after a b; all -1: unused
    recent: Int32[Array, "R1 L-1"]  # the last generated tokens, newest last; -1 before the first
    watermark: Watermark | None = None  # of engines that have one
    times: SpeechTimes | None = None  # of models that write when something was said

    def generated(self, slots: Int32[Array, " B"]) -> Int32[Array, "B V"]:
        """How often each token was."""
        return self.counts[slots] & (IN_PROMPT - 1)


def init_slots(
    num_slots: int,
    vocab_size: int,
    watermark: Widths | None = None,
    times: SpeechTimes | None = None,
) -> SlotState:
    """An empty state of `num_slots` slots and the sink, for logits of `vocab_size` columns."""
    rows = num_slots + 1
    return SlotState(
        counts=jnp.zeros((rows, vocab_size), jnp.int32),
        bias_ids=jnp.full((rows, MAX_LOGIT_BIAS), vocab_size, jnp.int32),
        bias_values=jnp.zeros((rows, MAX_LOGIT_BIAS), jnp.float32),
        allowed=jnp.zeros((rows, _num_words(vocab_size)), jnp.uint32),
        stop_ids=jnp.full((rows, MAX_STOP_IDS), vocab_size, jnp.int32),
        scored_ids=jnp.full((rows, MAX_LOGPROB_TOKEN_IDS), vocab_size, jnp.int32),
        bad_words=jnp.full(
            (rows, MAX_BAD_WORD_SEQUENCES, MAX_BAD_WORD_TOKENS), NO_TOKEN, jnp.int32
        ),
        recent=jnp.full((rows, MAX_RECENT), NO_TOKEN, jnp.int32),
        watermark=None if watermark is None else no_watermark(num_slots, watermark),
        times=times,
    )


def check_bad_words(bad_word_ids: Sequence[Sequence[int]]) -> None:
    """Raise `RequestError` for bad words that a slot cannot hold."""
    if len(bad_word_ids) > MAX_BAD_WORD_SEQUENCES:
        raise RequestError(
            f"bad_words makes {len(bad_word_ids)} token sequences, at most "
            f"{MAX_BAD_WORD_SEQUENCES} are possible: give fewer words.",
            "bad_words",
        )
    for ids in bad_word_ids:
        if not 0 < len(ids) <= MAX_BAD_WORD_TOKENS:
            raise RequestError(
                f"bad_words holds a word of {len(ids)} tokens; 1 to {MAX_BAD_WORD_TOKENS} "
                "are possible: give a shorter one.",
                "bad_words",
            )


def pack_options(
    slot: int,
    params: SamplingParams,
    *,
    prompt_token_ids: Sequence[int],
    stop_token_ids: Collection[int],
    bad_word_ids: Sequence[Sequence[int]],
    vocab_size: int,
    watermark_key: tuple[int, int] = (0, 0),
) -> Ints:
    """All that `admit` writes, as one `int32[packed_options_size(vocab_size)]`.

    Ids must lie in the vocabulary and `check_bad_words` must have passed; `stop_token_ids` are
    those that min_tokens bans, at most `MAX_STOP_IDS`.
    """
    packed = np.full(packed_options_size(vocab_size), vocab_size, np.int32)
    sections = _sections(packed, vocab_size)
    sections["slot"][0] = slot
    sections["key"].view(np.uint32)[:] = watermark_key
    bias = params.logit_bias or {}
    sections["bias_ids"][: len(bias)] = list(bias.keys())
    sections["bias_values"].view(np.float32)[: len(bias)] = list(bias.values())
    sections["stop_ids"][: len(stop_token_ids)] = list(stop_token_ids)
    scored = params.logprob_token_ids or ()
    sections["scored_ids"][: len(scored)] = list(scored)
    sections["bad_words"][:] = NO_TOKEN
    words = sections["bad_words"].reshape(MAX_BAD_WORD_SEQUENCES, MAX_BAD_WORD_TOKENS)
    for word, ids in zip(words, bad_word_ids, strict=False):
        word[-len(ids) :] = ids
    sections["allowed"][:] = pack_bits(params.allowed_token_ids or (), vocab_size)
    sections["prompt"][:] = pack_bits(prompt_token_ids, vocab_size)
    return packed


def packed_options_size(vocab_size: int) -> int:
    """Entries of what `pack_options` returns."""
    return sum(_widths(vocab_size).values())


def admit(state: SlotState, packed: Int32[Array, " W"]) -> SlotState:
    """Write a request's options into its slot, count its prompt and forget all generated tokens."""
    vocab_size = state.counts.shape[1]
    sections = _sections(packed, vocab_size)
    slot = sections["slot"][0]
    prompt = unpack_bits(lax.bitcast_convert_type(sections["prompt"], jnp.uint32), vocab_size)
    written = SlotState(
        counts=jnp.where(prompt, IN_PROMPT, 0),
        bias_ids=sections["bias_ids"],
        bias_values=lax.bitcast_convert_type(sections["bias_values"], jnp.float32),
        allowed=lax.bitcast_convert_type(sections["allowed"], jnp.uint32),
        stop_ids=sections["stop_ids"],
        scored_ids=sections["scored_ids"],
        bad_words=sections["bad_words"].reshape(state.bad_words.shape[1:]),
        recent=jnp.full(MAX_RECENT, NO_TOKEN, jnp.int32),
        watermark=_new_answer(state.watermark, sections["key"]),
        times=state.times,
    )
    admitted: SlotState = jax.tree.map(lambda old, new: old.at[slot].set(new), state, written)
    return admitted


def _new_answer(watermark: Watermark | None, key: Int32[Array, " 2"]) -> Watermark | None:
    """What a slot holds of it for a request that has generated nothing."""
    if watermark is None:
        return None
    nothing = jnp.full(watermark.history.shape[1], NO_TOKEN, jnp.int32)
    words = lax.bitcast_convert_type(key, jnp.uint32)
    return Watermark(words, nothing, watermark.context_width)


def observe(
    state: SlotState,
    tokens: Int32[Array, " T"],
    token_slots: Int32[Array, " T"],
    is_output: Bool[Array, " T"],
    row_slots: Int32[Array, " B"],
    row_start: Int32[Array, " B"],
    row_len: Int32[Array, " B"],
) -> SlotState:
    """Count the generated tokens that enter the model in this step.

    Row b is the tokens [row_start, row_start + row_len), all of slot row_slots[b]. Padding, and
    rows that need no counts, name slot R. Two scatters of T and B entries: cheaper than asking
    whether any row needs them.
    """
    past_the_end = state.counts.shape[0]
    slots = jnp.where(is_output, token_slots, past_the_end)
    counts = state.counts.at[slots, tokens].add(1, mode="drop")
    generated = jnp.where(is_output, tokens, NO_TOKEN)
    recent = _shift_in(state.recent[row_slots], generated, row_start, row_len)
    return state._replace(counts=counts, recent=state.recent.at[row_slots].set(recent))


def unpack_bits(words: UInt32[Array, "*rows W"], vocab_size: int) -> Bool[Array, "*rows V"]:
    """One bool for each token from 32 tokens a word, lowest bit first."""
    bits = words[..., None] >> jnp.arange(32, dtype=jnp.uint32) & 1
    return bits.astype(bool).reshape(*words.shape[:-1], -1)[..., :vocab_size]


def _shift_in(
    recent: Int32[Array, "B N"],
    tokens: Int32[Array, " T"],
    row_start: Int32[Array, " B"],
    row_len: Int32[Array, " B"],
) -> Int32[Array, "B N"]:
    """The last N of a row's recent tokens followed by its new ones.

    N = 3, two new:  recent [a b c] + new [d e]  ->  [c d e]
    """
    num_kept = recent.shape[1]
    index = row_len[:, None] + jnp.arange(num_kept)  # into recent ++ new
    new_index = jnp.clip(row_start[:, None] + index - num_kept, 0, tokens.shape[0] - 1)
    old = jnp.take_along_axis(recent, jnp.minimum(index, num_kept - 1), axis=1)
    return jnp.where(index < num_kept, old, tokens[new_index])


def pack_bits(ids: Collection[int], vocab_size: int) -> Ints:
    """The words of which `unpack_bits` makes bools: those of `ids` are set."""
    mask = np.zeros(32 * _num_words(vocab_size), bool)
    mask[np.fromiter(ids, np.int64, len(ids))] = True
    return np.packbits(mask, bitorder="little").view("<i4").astype(np.int32)


def _num_words(vocab_size: int) -> int:
    return -(-vocab_size // 32)


def _widths(vocab_size: int) -> dict[str, int]:
    return {
        "slot": 1,
        "key": 2,
        "bias_ids": MAX_LOGIT_BIAS,
        "bias_values": MAX_LOGIT_BIAS,
        "stop_ids": MAX_STOP_IDS,
        "scored_ids": MAX_LOGPROB_TOKEN_IDS,
        "bad_words": MAX_BAD_WORD_SEQUENCES * MAX_BAD_WORD_TOKENS,
        "allowed": _num_words(vocab_size),
        "prompt": _num_words(vocab_size),
    }


def _sections(packed: Any, vocab_size: int) -> dict[str, Any]:
    """Views of a packed array's parts, of the host's or the device's alike."""
    start, found = 0, {}
    for name, width in _widths(vocab_size).items():
        found[name] = packed[start : start + width]
        start += width
    return found
