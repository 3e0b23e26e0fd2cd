"""Products with weights of 4 bits that share a scale in groups."""

from pallas_kernels.quantized.quant_matmul import quant_matmul
from pallas_kernels.quantized.weights import Int4Weight

__all__ = ["Int4Weight", "quant_matmul"]
