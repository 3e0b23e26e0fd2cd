"""From logits to tokens."""

from pallas_kernels.sampling.draw import draw, drawn_from, likeliest
from pallas_kernels.sampling.limits import check_vocabulary
from pallas_kernels.sampling.rows import DrawRows, is_penalised, pack_rows, unpack_rows

__all__ = [
    "DrawRows",
    "check_vocabulary",
    "draw",
    "drawn_from",
    "is_penalised",
    "likeliest",
    "pack_rows",
    "unpack_rows",
]
