"""From logits to tokens."""

from pallas_kernels.sampling.draw import draw, likeliest
from pallas_kernels.sampling.limits import check_vocabulary
from pallas_kernels.sampling.rows import DrawRows, is_penalised, pack_rows, unpack_rows

__all__ = [
    "DrawRows",
    "check_vocabulary",
    "draw",
    "is_penalised",
    "likeliest",
    "pack_rows",
    "unpack_rows",
]
