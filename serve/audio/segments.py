"""From what was written about one window of audio to pieces of text with times.

    <0.00> Hello.<1.20><1.20> How are you?<2.50><2.50> I

Times stand around each piece. A piece without its end was cut off by the end of the window: the
next window begins where the last whole piece ended, and hears it again.

Source: the sliding window of Whisper, arXiv 2212.04356, section 3.8.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
    ids = [token for _, token in known]
    pieces: list[Piece] = []
    start, text, places = 0.0, list[int](), list[int]()
    for place, token in known:
        if token < tokens.end:
            text.append(token)
            places.append(place)
            continue
        time = min(window, (token - tokens.first_timestamp) * SECONDS)
        if text:
            pieces.append(Piece(start, max(start, time), text, places))
            text, places = [], []
        start = time
    if text and not pieces:
        return [Piece(start, window, text, places)], window
    in_a_pair = len(ids) > 1 and min(ids[-2:]) >= tokens.first_timestamp
    if pieces and (text or in_a_pair):
        return pieces, min(window, max(LEAST, pieces[-1].end))
    return pieces, window
