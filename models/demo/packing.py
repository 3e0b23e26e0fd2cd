"""Training documents as rows of tokens of one length.

Owns tokenising and packing: several short documents share a row and are kept apart by segment
numbers; a document longer than the row is cut.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from models.demo.corpus import Piece
from models.demo.vocabulary import END_OF_TEXT, token_id


class Batch(NamedTuple):
    """`tokens` and `segments` are int32 `[B, T + 1]`, `weights` float32 `[B, T + 1]`.

    `weights` counts the token at the same place as a target; padding has weight 0 and segment 0.
    """

    tokens: np.ndarray
    segments: np.ndarray
    weights: np.ndarray


Row = list[tuple[list[int], list[float]]]


class Packer:
    """Batches of `rows` rows of `length` + 1 tokens, made from an endless source of documents."""

    def __init__(
        self, tokenizer: Tokenizer, document: Callable[[], list[Piece]], rows: int, length: int
    ) -> None:
        self.tokenizer = tokenizer
        self.document = document
        self.rows = rows
        self.length = length
        self.end = token_id(tokenizer, END_OF_TEXT)
        self.waiting: list[tuple[list[int], list[float]]] = []

    def encode(self, pieces: list[Piece]) -> tuple[list[int], list[float]]:
        """Tokens and weights of one document and the end-of-text token behind it."""
        text = "".join(piece for piece, _ in pieces)
        bounds = np.cumsum([len(piece) for piece, _ in pieces])
        encoded = self.tokenizer.encode(text, add_special_tokens=False)
        starts = np.array([start for start, _ in encoded.offsets])
        piece = np.searchsorted(bounds, starts, side="right")
        weights = np.array([weight for _, weight in pieces])[piece]
        return [*encoded.ids, self.end], [*weights.tolist(), 1.0]

    def _fill(self) -> Row:
        """Documents for one row: the one that has waited longest, and all that still fit."""
        while len(self.waiting) < 64:
            self.waiting.append(self.encode(self.document()))
        tokens, weights = self.waiting.pop(0)
        row: Row = [(tokens[: self.length + 1], weights[: self.length + 1])]
        room = self.length + 1 - len(row[0][0])
        for index in range(len(self.waiting) - 1, -1, -1):
            if len(self.waiting[index][0]) <= room:
                row.append(self.waiting.pop(index))
                room -= len(row[-1][0])
        return row

    def batch(self) -> Batch:
        """The next batch."""
        shape = (self.rows, self.length + 1)
        batch = Batch(
            np.full(shape, self.end, np.int32),
            np.zeros(shape, np.int32),
            np.zeros(shape, np.float32),
        )
        for number in range(self.rows):
            place = 0
            for segment, (tokens, weights) in enumerate(self._fill(), start=1):
                span = slice(place, place + len(tokens))
                batch.tokens[number, span] = tokens
                batch.segments[number, span] = segment
                batch.weights[number, span] = weights
                batch.weights[number, place] = 0.0  # nothing in its segment predicts the first
                place += len(tokens)
        return batch
