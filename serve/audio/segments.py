"""From what was written about one window of audio to pieces of text with times.

    <0.00> Hello.<1.20><1.20> How are you?<2.50><2.50> I

Times stand around each piece. A piece without its end was cut off by the end of the window: the
next window begins where the last whole piece ended, and hears it again. What has no two times
beside each other is one piece from the window's beginning on.

Source: the sliding window of Whisper, arXiv 2212.04356, section 3.8.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from serve.audio.tokens import SECONDS, SpeechTokens

LEAST = 1.0  # seconds from window to window, lest a confused model makes hundreds


@dataclass(frozen=True, slots=True)
class Piece:
    """Text tokens said between two times of a window, in seconds."""

    start: float
    end: float
    token_ids: list[int]
    places: list[int]  # of these tokens in what was written


def cut(written: Sequence[int], tokens: SpeechTokens, window: float) -> tuple[list[Piece], float]:
    """The pieces of a window of so many seconds, and the second at which the next begins."""
    known = [
        (place, token)
        for place, token in enumerate(written)
        if token < tokens.end or token >= tokens.first_timestamp
    ]
    times = [
        min(window, (token - tokens.first_timestamp) * SECONDS) if token >= tokens.end else None
        for _, token in known
    ]

    def piece(first: int, last: int, start: float, end: float) -> Piece:
        said = [each for each in known[first:last] if each[1] < tokens.end]
        ids, places = [token for _, token in said], [place for place, _ in said]
        return Piece(start, max(start, end), ids, places)

    pairs = [i for i in range(1, len(times)) if None not in times[i - 1 : i + 1]]
    if not pairs or None not in times:
        end = next((time for time in reversed(times) if time is not None), None)
        pieces, after = [piece(0, len(known), 0.0, end or window)], window
    else:
        said_whole = times[-2] is None and times[-1] is not None
        borders = [0, *pairs, *([len(times)] if said_whole else [])]
        pieces = [
            piece(first, last, times[first] or 0.0, times[last - 1] or 0.0)
            for first, last in pairwise(borders)
        ]
        after = window if said_whole else min(window, max(LEAST, times[pairs[-1] - 1] or 0.0))
    return [each for each in pieces if each.token_ids], after
