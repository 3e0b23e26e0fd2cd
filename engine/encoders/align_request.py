"""What is asked of a model that hears: where in the audio each token of a text is said.

Imports no JAX: the HTTP front asks it.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np


class AlignRequest(msgspec.Struct, array_like=True, frozen=True):
    """Of a prompt that ends with that text."""

    first: int  # place of the text's first token in the prompt
    positions: int  # that the encoder heard before the silence that fills its window


@dataclass(frozen=True)
class Aligned:
    """What was asked, on its way to the host."""

    smooth: Any  # float32 [T, S], on the device
    asked: AlignRequest

    def read(self, num_tokens: int) -> bytes:
        """Of the text, which ends a prompt of so many tokens: float32 [tokens, positions],
        little-endian."""
        rows = np.asarray(self.smooth)[self.asked.first : num_tokens, : self.asked.positions]
        return rows.astype("<f4").tobytes()
