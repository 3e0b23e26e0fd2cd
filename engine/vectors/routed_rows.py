"""What is told of the experts that each token took (`--enable-return-routed-experts`): its shape.

    token ─ layers [L] ─ experts [k], by number; 0 in layers that have none

The front reads it too, which knows no model.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

Experts = NDArray[np.unsignedinteger]  # [n, L, k] of n tokens


class RoutedRows(msgspec.Struct, frozen=True):
    """A row [L, k] for each token."""

    num_layers: int  # L
    per_token: int  # k
    dtype: str  # uint8, or uint16 of more than 256 experts

    def read(self, content: bytes) -> Experts:
        """Rows [n, L, k] of their bytes, in order."""
        rows = np.frombuffer(content, np.dtype(self.dtype).newbyteorder("<"))
        return rows.reshape(-1, self.num_layers, self.per_token)
