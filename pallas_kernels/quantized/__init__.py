"""Products with weights of 4 and 8 bits that share a scale in groups or by column."""

from pallas_kernels.quantized.quant_matmul import quant_matmul
from pallas_kernels.quantized.scaled_matmul import (
    fp8_matmul,
    int8_matmul,
    quantize_tokens,
    scaled_matmul,
)
from pallas_kernels.quantized.weights import Int4Weight, Int8Weight, Nf4Weight, QuantizedWeight

__all__ = [
    "Int4Weight",
    "Int8Weight",
    "Nf4Weight",
    "QuantizedWeight",
    "fp8_matmul",
    "int8_matmul",
    "quant_matmul",
    "quantize_tokens",
    "scaled_matmul",
]
