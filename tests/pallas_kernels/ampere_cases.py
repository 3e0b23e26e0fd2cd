"""Kernels for Ampere and Ada that are compiled on every change: some of the named shapes.

`compile_check --cases` takes this module, in a process of its own: XLA reads where to write what
Triton made once, when it first compiles.
"""

from pallas_kernels.attention.cases import RaggedCase
from pallas_kernels.cache.cases import EightBitWriteCase
from pallas_kernels.cases import CASES as NAMED

_NAMES = (
    ("paged_decode", "llama-3.1-8b"),
    ("paged_decode", "gemma-3-1b"),  # splits, wide heads, a window
    ("paged_decode", "llama-3.1-8b, int8 cache"),
    ("ragged_attention", "llama-3.1-8b, fp8, 56 decode rows"),
    ("ragged_attention", "llama-3.1-8b, 56 decode rows"),
    ("ragged_attention", "gemma-2-9b, prompt of 8k"),
    ("ragged_attention", "gpt-oss-20b, prompt of 8k"),
    ("qkv_write", "qwen3-8b, 64 rows"),
)
CASES = (
    RaggedCase("head dim 192", ((1, 100), (200, 10)), 8, 8, 192, 32, 100, 30.0, True),
    EightBitWriteCase("fp8, head dim 80", 5, 71, 3, 80, 24, True, cache="float8_e4m3fn"),
    *(case for case in NAMED if (case.kernel, case.name) in _NAMES),
)
