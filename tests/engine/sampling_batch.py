"""A batch of sequences brought onto the device the way the engine does it, for tests."""

from collections.abc import Sequence as List

import jax
import numpy as np
from numpy.typing import NDArray

from engine.sampling.options import needs_admission, sampling_row, unpack_rows
from engine.sampling.sampler import Sampled, sample
from engine.sampling.state import SlotState, admit, observe, pack_options
from tests.engine.sampling_reference import Sequence

Ints = NDArray[np.int32]
admit_jit = jax.jit(admit, donate_argnums=0)
observe_jit = jax.jit(observe, donate_argnums=0)


def sample_packed(
    logits, packed, slots, positions, targets, state, processed_logprobs=False
) -> Sampled:
    rows = unpack_rows(packed)
    return sample(
        logits, rows, slots, positions, targets, state, processed_logprobs=processed_logprobs
    )


sample_jit = jax.jit(sample_packed, static_argnames="processed_logprobs")


def ints(values: List[int]) -> Ints:
    return np.array(values, np.int32)


def enter(state: SlotState, slot: int, sequence: Sequence) -> SlotState:
    """Admit a sequence if it needs that, and show its tokens to `observe`."""
    vocab_size = state.counts.shape[1]
    if needs_admission(sequence.params):
        packed = pack_options(
            slot, sequence.params, prompt_token_ids=sequence.prompt,
            stop_token_ids=sequence.stop_ids, bad_word_ids=sequence.bad_words,
            vocab_size=vocab_size,
        )  # fmt: skip
        state = admit_jit(state, packed)
    return feed(state, slot, sequence.prompt + sequence.output, len(sequence.prompt))


def feed(state: SlotState, slot: int, tokens: list[int], prompt_len: int) -> SlotState:
    """One step of one row: `tokens`, of which the first `prompt_len` are the prompt's."""
    width, sink = 64, state.counts.shape[0] - 1
    padding = [0] * (width - len(tokens))
    slots = [slot] * len(tokens) + [sink] * len(padding)
    is_output = np.arange(width) >= prompt_len
    return observe_jit(
        state, ints(tokens + padding), ints(slots), is_output,
        ints([slot, sink]), ints([0, len(tokens)]), ints([len(tokens), 0]),
    )  # fmt: skip


def choose(
    logits: NDArray[np.float32],
    sequences: list[Sequence],
    slots: list[int],
    state: SlotState,
    width: int = 4,
    *,
    processed_logprobs: bool = False,
    targets: list[int] | None = None,
) -> Sampled:
    """One token for each sequence, in a batch that padding fills up to `width` rows."""
    padding = width - len(sequences)
    sink = state.counts.shape[0] - 1
    rows = [sampling_row(s.params, seed=s.seed, prompt_len=len(s.prompt)) for s in sequences]
    positions = [s.position for s in sequences]
    sampled = sample_jit(
        np.pad(logits, ((0, padding), (0, 0))),
        np.pad(np.stack(rows, axis=1), ((0, 0), (0, padding))),
        ints(slots + [sink] * padding),
        ints(positions + [0] * padding),
        ints([*(targets or [-1] * len(sequences)), *[-1] * padding]),
        state,
        processed_logprobs=processed_logprobs,
    )
    return jax.tree.map(lambda part: np.asarray(part)[: len(sequences)], sampled)
