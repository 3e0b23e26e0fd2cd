"""When each word was said: a path through what its tokens attended to.

    smooth [tokens, positions] ─ warp ─ position at which each token begins ─> seconds ─ words

Tokens are words together where a new one begins with a space, and marks belong to the word that
they stand at; in languages that write no spaces each character is a word.

Source: Whisper's word times; dynamic time warping after Sakoe and Chiba, 1978.
"""

import string
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.tokenizers.tokenizer import Tokenizer
from serve.audio.protocol import Word
from serve.audio.tokens import SECONDS

UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
_OPENING, _CLOSING = "\"'“¡¿([{-", "\"'.。,，!！?？:：”)]}、"
_DIAGONAL, _DOWN, _RIGHT = range(3)
_UNFINISHED = "\ufffd"  # of a character whose bytes go on in the next token


def token_times(alignment: bytes, num_tokens: int) -> list[float]:
    """The second at which each token ends, and behind them that of one that was not computed."""
    smooth = np.frombuffer(alignment, "<f4").reshape(num_tokens, -1)
    begins = warp(-smooth.astype(np.float64)) * SECONDS
    return [*begins.tolist(), float(begins[-1])]


def warp(costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """The column at which the cheapest path from corner to corner enters each row.

    Sums are float32, and of equal ones the step to the right is taken: so does the reference.
    """
    steps = _steps(costs)
    row, column = costs.shape
    entered = np.zeros(row, np.int64)
    while row > 0:
        entered[row - 1] = max(0, column - 1)
        step = steps[row, column]
        row -= step != _RIGHT
        column -= step != _DOWN
    return entered


def _steps(costs: NDArray[np.float64]) -> NDArray[np.int8]:
    """By which the cheapest path comes to each place; those of one diagonal all at once."""
    rows, columns = costs.shape
    sums = np.full((rows + 1, columns + 1), np.inf, np.float32)
    steps = np.full((rows + 1, columns + 1), _RIGHT, np.int8)
    sums[0, 0], steps[1:, 0] = 0, _DOWN
    for both in range(2, rows + columns + 1):
        i = np.arange(max(1, both - columns), min(rows, both - 1) + 1)
        j = both - i
        diagonal, down, right = sums[i - 1, j - 1], sums[i - 1, j], sums[i, j - 1]
        slanted = (diagonal < down) & (diagonal < right)
        best = np.where(
            slanted, diagonal, np.where((down < diagonal) & (down < right), down, right)
        )
        steps[i, j] = np.where(
            slanted, _DIAGONAL, np.where((down < diagonal) & (down < right), _DOWN, _RIGHT)
        )
        sums[i, j] = costs[i - 1, j - 1] + best
    return steps


def words_of(
    tokenizer: Tokenizer, ids: Sequence[int], times: Sequence[tuple[float, float]], language: str
) -> list[Word]:
    """The words of `ids`, of which each was said between two seconds."""
    found = list(_characters(tokenizer, ids))
    if language not in UNSPACED:
        found = _joined(found)
    found = _with_marks(found)
    words, at = [], 0
    for text, count in found:
        said = times[at : at + count]
        words.append(Word(text.strip(), said[0][0], said[-1][1]))
        at += count
    return [word for word in words if word.word]


Piece = tuple[str, int]  # a text, and how many tokens it has


def _characters(tokenizer: Tokenizer, ids: Sequence[int]) -> Iterable[Piece]:
    """The smallest pieces that are whole characters; what never is one is a piece, too."""
    whole, begun, offset = tokenizer.decode(ids), list[int](), 0
    for token in ids:
        begun.append(token)
        text = tokenizer.decode(begun)
        place = text.find(_UNFINISHED)
        if place < 0 or whole[offset + place : offset + place + 1] in ("", _UNFINISHED):
            yield text, len(begun)
            offset += len(text)
            begun = []
    if begun:
        yield tokenizer.decode(begun), len(begun)


def _joined(pieces: Iterable[Piece]) -> list[Piece]:
    found: list[Piece] = []
    for text, count in pieces:
        if not found or text.startswith(" ") or text.strip() in string.punctuation:
            found.append((text, count))
        else:
            found[-1] = found[-1][0] + text, found[-1][1] + count
    return found


def _with_marks(pieces: Sequence[Piece]) -> list[Piece]:
    """Opening marks with what follows, closing ones with what is before."""
    opened: list[Piece] = []
    for text, count in reversed(pieces):
        if opened and text.startswith(" ") and text.strip() in _OPENING:
            opened[-1] = text + opened[-1][0], count + opened[-1][1]
        else:
            opened.append((text, count))
    closed: list[Piece] = []
    for text, count in reversed(opened):
        if closed and not closed[-1][0].endswith(" ") and text in _CLOSING:
            closed[-1] = closed[-1][0] + text, closed[-1][1] + count
        else:
            closed.append((text, count))
    return closed
