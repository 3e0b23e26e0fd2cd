"""Slots: what admission writes, and what observing tokens counts."""

import numpy as np
import pytest

from engine.errors import RequestError
from engine.sampling.params import MAX_BAD_WORD_TOKENS, SamplingParams
from engine.sampling.state import (
    IN_PROMPT,
    MAX_BAD_WORD_SEQUENCES,
    MAX_RECENT,
    MAX_STOP_IDS,
    check_bad_words,
    init_slots,
    pack_options,
    packed_options_size,
    unpack_bits,
)
from tests.engine.sampling_batch import admit_jit, enter, feed, ints, observe_jit
from tests.engine.sampling_reference import Sequence

V, R = 70, 3
PENALISED = SamplingParams(presence_penalty=1.0)


def counts_of(state, slot) -> dict[int, int]:
    row = np.asarray(state.counts[slot])
    return {int(token): int(row[token]) for token in np.flatnonzero(row)}


def test_admission_counts_the_prompt_and_output_counts_as_it_enters() -> None:
    sequence = Sequence(PENALISED, prompt=[5, 5, 69], output=[5, 9, 9])
    state = enter(init_slots(R, V), 1, sequence)
    assert counts_of(state, 1) == {5: IN_PROMPT + 1, 69: IN_PROMPT, 9: 2}
    assert counts_of(state, 0) == {}


def test_a_sequence_in_any_pieces_is_the_same_sequence() -> None:
    prompt, output = [1, 2, 3], [4, 5, 4, 6, 7, 8, 9, 10, 11]
    whole = enter(init_slots(R, V), 0, Sequence(PENALISED, prompt, output))
    pieces = enter(init_slots(R, V), 0, Sequence(PENALISED, prompt, []))
    for part in (output[:1], output[1:6], output[6:8], output[8:]):
        pieces = feed(pieces, 0, part, 0)
    np.testing.assert_array_equal(whole.counts[0], pieces.counts[0])
    np.testing.assert_array_equal(whole.recent[0], pieces.recent[0])
    assert np.asarray(whole.recent[0]).tolist() == output[-MAX_RECENT:]


def test_recent_holds_only_generated_tokens() -> None:
    state = enter(init_slots(R, V), 0, Sequence(PENALISED, [1, 2, 3], [4, 5]))
    assert np.asarray(state.recent[0]).tolist() == [-1] * (MAX_RECENT - 2) + [4, 5]


def test_admission_forgets_the_request_before() -> None:
    state = enter(init_slots(R, V), 2, Sequence(PENALISED, [1, 2], [3] * 9))
    state = enter(state, 2, Sequence(PENALISED, [6], []))
    assert counts_of(state, 2) == {6: IN_PROMPT}
    assert set(np.asarray(state.recent[2]).tolist()) == {-1}


def test_rows_of_one_step_are_counted_apart_and_padding_in_no_slot() -> None:
    state = init_slots(R, V)
    before = np.asarray(state.counts)
    tokens = ints([7, 8, 8, 9, 0, 0])
    slots = ints([2, 0, 0, 0, R, R])
    is_output = np.array([True, False, True, True, False, True])
    state = observe_jit(
        state, tokens, slots, is_output, ints([2, 0, R]), ints([0, 1, 4]), ints([1, 3, 0])
    )
    change = np.asarray(state.counts) - before
    assert counts_of(state, 2) == {7: 1}
    assert counts_of(state, 0) == {8: 1, 9: 1}
    assert change[1].sum() == 0
    assert np.asarray(state.recent[:R, -3:]).tolist() == [[-1, 8, 9], [-1, -1, -1], [-1, -1, 7]]


def test_admission_writes_every_list() -> None:
    params = SamplingParams(
        logit_bias={3: 2.5, 69: -100.0}, allowed_token_ids=[0, 31, 32, 69], min_tokens=2
    )
    state = enter(
        init_slots(R, V), 0, Sequence(params, [1], [], stop_ids=[8, 2], bad_words=[[4], [5, 6, 7]])
    )
    assert np.asarray(state.bias_ids[0, :3]).tolist() == [3, 69, V]
    assert np.asarray(state.bias_values[0, :2]).tolist() == [2.5, -100.0]
    assert np.flatnonzero(unpack_bits(state.allowed[0], V)).tolist() == [0, 31, 32, 69]
    assert np.asarray(state.stop_ids[0, :3]).tolist() == [8, 2, V]
    assert np.asarray(state.bad_words[0, :3, -3:]).tolist() == [[-1, -1, 4], [5, 6, 7], [-1] * 3]


def test_the_fullest_request_has_the_width_of_the_emptiest() -> None:
    fullest = pack_options(
        R - 1,
        SamplingParams(allowed_token_ids=list(range(V)), logit_bias=dict.fromkeys(range(V), 1.0)),
        prompt_token_ids=list(range(V)),
        stop_token_ids=list(range(MAX_STOP_IDS)),
        bad_word_ids=[[1] * MAX_BAD_WORD_TOKENS] * MAX_BAD_WORD_SEQUENCES,
        vocab_size=V,
    )
    assert fullest.shape == (packed_options_size(V),)
    state = admit_jit(init_slots(R, V), fullest)
    assert np.all(np.asarray(state.bad_words[R - 1]) == 1)
    assert counts_of(state, R - 1) == dict.fromkeys(range(V), IN_PROMPT)


@pytest.mark.parametrize(
    "words", [[[]], [[1] * (MAX_BAD_WORD_TOKENS + 1)], [[1]] * (MAX_BAD_WORD_SEQUENCES + 1)]
)
def test_bad_words_that_a_slot_cannot_hold_are_refused(words) -> None:
    with pytest.raises(RequestError, match="bad_words") as error:
        check_bad_words(words)
    assert error.value.param == "bad_words"
