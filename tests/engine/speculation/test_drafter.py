"""What is guessed: what stood behind the same tokens, further on while that holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.speculation.drafter import Drafter

TEXTS = st.lists(st.integers(0, 3), min_size=1, max_size=60)


def drafter(shortest=1, longest=4, prompt_len=1, **options):
    return Drafter(8, shortest, longest, prompt_len, **options)


@given(text=TEXTS, shortest=st.integers(1, 3), more=st.integers(0, 3))
def test_the_guess_stood_behind_the_most_of_the_newest_tokens(text, shortest, more):
    longest = shortest + more
    guess = drafter(shortest, longest).propose(text, 0, 1)
    for length in range(longest, shortest - 1, -1):
        behind = [
            text[end]
            for end in range(length, len(text))
            if text[end - length : end] == text[len(text) - length :]
        ]
        if behind:
            assert guess == behind[-1:]
            return
    assert not guess


@given(text=TEXTS, tail=TEXTS, ahead=st.integers(0, 5))
def test_what_is_in_flight_is_guessed_and_left_out(text, tail, ahead):
    one, other = drafter(), drafter()
    one.propose(text, 0, 4), other.propose(text, 0, 4)
    assert one.propose(text + tail, ahead, 6) == other.propose(text + tail, 0, 6 + ahead)[ahead:]


def test_a_guess_that_holds_goes_on_behind_it():
    """[5 6] stands in two places: the newer is where the text goes on, until it does not."""
    text = [1, 5, 6, 7, 8, 9, 2, 5, 6, 3, 3]
    guesses = drafter(shortest=2)
    assert guesses.propose([*text, 5, 6], 0, 3) == [3, 3, 5]
    assert guesses.propose([*text, 5, 6, 3], 0, 3) == [3, 5, 6]
    assert guesses.propose([*text, 5, 6, 3, 7], 0, 3) == []
    assert guesses.propose([*text, 5, 6, 3, 7, 8], 0, 3) == [9, 2, 5]


def test_a_text_that_repeats_itself_goes_on_beyond_its_end():
    assert drafter().propose([1, 2, 3, 1], 0, 7) == [2, 3, 1, 2, 3, 1, 2]
    assert drafter().propose([4, 4], 0, 3) == [4, 4, 4]


def test_a_prediction_is_guessed_from_its_beginning_and_not_beyond_its_end():
    guesses = drafter(shortest=2, prompt_len=3, prediction=[7, 8, 9, 7, 8])
    assert guesses.propose([1, 2, 3], 1, 8) == [8, 9, 7, 8]
    assert guesses.propose([1, 2, 3, 7], 0, 2) == [8, 9]
    assert guesses.propose([1, 2, 3, 7, 5], 0, 8) == []
    assert guesses.propose([1, 2, 3, 7, 5, 8, 9], 0, 8) == [7, 8]
    assert guesses.propose([1, 2, 3, 7, 5, 8, 9, 7, 8], 0, 8) == []


@pytest.mark.parametrize("known", range(4))
def test_a_prediction_is_where_it_should_be_however_many_tokens_were_there_first(known):
    said = [7, 8, 9, 7, 8]
    guesses = drafter(shortest=2, prompt_len=3, prediction=said)
    assert guesses.propose([1, 2, 3, *said[:known]], 0, 8) == said[known:]


@pytest.mark.parametrize("held", [False, True])
def test_after_guesses_that_were_wrong_the_next_waits_longer_each_time(held):
    guesses, text, waits = drafter(), [4, 4], []
    guesses.propose(text, 0, 1)
    for _ in range(9):
        guesses.judge(0)
        text.append(4)  # the step of which all guesses were wrong
        waits.append(0)
        while not guesses.propose(text, 0, 1):
            text.append(4)
            waits[-1] += 1
        if held:
            guesses.judge(1)
            assert guesses.propose(text, 0, 1)
    assert waits == ([1] * 9 if held else [1, 2, 4, 8, 16, 32, 64, 64, 64])


def test_one_token_has_stood_nowhere_before():
    assert drafter().propose([4], 0, 3) == []
