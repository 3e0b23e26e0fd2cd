"""From logits to tokens."""

from pallas_kernels.sampling.draw import draw, likeliest
from pallas_kernels.sampling.limits import takes_vocabulary
from pallas_kernels.sampling.rows import DrawRows

__all__ = ["DrawRows", "draw", "likeliest", "takes_vocabulary"]
