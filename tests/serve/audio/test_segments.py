"""What was written about a window, cut where it says that something began and ended."""

import pytest

from serve.audio.segments import LEAST, cut
from serve.audio.tokens import SpeechTokens

TOKENS = SpeechTokens(
    end=50, start=51, transcribe=52, translate=53, previous=54, no_timestamps=60,
    no_speech=55, languages={"en": 56}, suppressed=(),
)  # fmt: skip


def at(seconds: float) -> int:
    return 61 + round(seconds / 0.02)


def shown(written: list[int], window: float = 30.0) -> tuple[list, float]:
    pieces, end = cut(written, TOKENS, window)
    return [(p.start, p.end, p.token_ids) for p in pieces], end


def test_a_window_that_ends_with_a_time_was_said_whole() -> None:
    written = [at(0), 1, 2, at(1.2), at(1.2), 3, at(4), 50]
    assert shown(written) == ([(0, 1.2, [1, 2]), (1.2, 4, [3])], 30.0)


def test_what_has_no_end_is_heard_again() -> None:
    written = [at(0), 1, at(2), at(2), 3, 4]
    assert shown(written) == ([(0, 2, [1])], 2.0)


def test_a_beginning_without_text_begins_the_next_window() -> None:
    assert shown([at(0), 1, at(9), at(9.5), 50]) == ([(0, 9, [1])], 9.0)


def test_text_without_times_is_of_the_whole_window() -> None:
    assert shown([1, 2, 50]) == ([(0, 30.0, [1, 2])], 30.0)
    assert shown([at(0), 1, 2], 8.0) == ([(0, 8.0, [1, 2])], 8.0)
    assert shown([at(3), 1, 2, at(5)], 8.0) == ([(0, 5.0, [1, 2])], 8.0)


def test_nothing_is_silence() -> None:
    assert shown([50]) == ([], 30.0)
    assert shown([at(0), at(0)]) == ([], 30.0)


def test_times_lie_within_the_window_and_do_not_run_back() -> None:
    assert shown([at(5), 1, at(3), at(20), 2, at(29)], 10.0) == (
        [(5, 5, [1]), (10.0, 10.0, [2])],
        10.0,
    )


@pytest.mark.parametrize("end", [0.0, 0.02])
def test_windows_go_on_whatever_is_written(end: float) -> None:
    assert shown([at(0), 1, at(end), at(end), 2])[1] == LEAST


def test_prompts() -> None:
    assert TOKENS.prompt("en", "transcribe", (), timestamps=False) == [51, 56, 52, 60]
    assert TOKENS.prompt("en", "translate", [1, 2], timestamps=True) == [54, 1, 2, 51, 56, 53]
