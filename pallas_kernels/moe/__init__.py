"""Mixture of experts: who goes where, and the products of tokens that share an expert.

Weights of experts are plain arrays, or packed in 8 or 4 bits: `formats.py` says how they lie, and
`checkpoints.py` makes them of what is in files.
"""

from pallas_kernels.moe.activations import num_parts
from pallas_kernels.moe.checkpoints import (
    from_fp8,
    from_fp8_blocks,
    from_gpt_oss,
    from_int4,
    from_int8,
    side_by_side,
)
from pallas_kernels.moe.experts import experts
from pallas_kernels.moe.formats import (
    Fp8Experts,
    Int4Experts,
    Int8Experts,
    Mxfp4Experts,
    PackedExperts,
    dequantize,
)
from pallas_kernels.moe.routing import route
from pallas_kernels.moe.sparse_mixer import sparse_mixer

__all__ = [
    "Fp8Experts",
    "Int4Experts",
    "Int8Experts",
    "Mxfp4Experts",
    "PackedExperts",
    "dequantize",
    "experts",
    "from_fp8",
    "from_fp8_blocks",
    "from_gpt_oss",
    "from_int4",
    "from_int8",
    "num_parts",
    "route",
    "side_by_side",
    "sparse_mixer",
]
