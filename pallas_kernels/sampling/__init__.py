"""From logits to tokens."""

from pallas_kernels.sampling.draw import draw, likeliest
from pallas_kernels.sampling.limits import takes_vocabulary
from pallas_kernels.sampling.rows import DrawRows, is_penalised, pack_rows, unpack_rows

__all__ = [
    "DrawRows",
    "draw",
    "is_penalised",
    "likeliest",
    "pack_rows",
    "takes_vocabulary",
    "unpack_rows",
]
