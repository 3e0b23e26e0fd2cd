"""Kernels for Hopper that are compiled on every change: some of the named shapes.

Of each kernel the shape that takes the most registers, and those that together run every line of
it, so that each of its paths is compiled. All shapes, and what they take:

    python -m pallas_kernels.compile_check --target h200
"""

from pallas_kernels.cases import CASES as NAMED

_NAMES = {
    "paged_decode": (
        "llama-3.1-8b page 32",
        "llama-3.1-8b one row, 128k",
        "gemma-2-9b",
        "gemma-4-31b, no window",  # 211 registers
        "llama-3.1-8b, fp8, page 16",
        "mpt-7b",
        "gpt-oss-20b, int8",
    ),
    "paged_verify": (
        "llama-3.1-8b, 8 drafts",
        "llama-3.1-8b, fp8, 8 drafts",
        "llama-3.1-8b, tree of 31",
        "gpt-oss-20b, 4 drafts, window",
    ),
    "ragged_attention": (  # all take 168
        "llama-3.1-8b, prompt of 2k",
        "llama-3.1-8b, int8, page 16",
        "llama-3.1-8b, 16 prompts",
        "gemma-2-9b, prompt of 8k",
        "gemma-4-31b, no window, prompt of 8k",
        "gpt-oss-20b, prompt of 8k",
        "bloom-7b, fp8, 56 decode rows",
    ),
    "qkv_write": (
        "llama-3.1-8b, one row",
        "gemma-4-31b, 64 rows, no window",  # 127
        "phi-3-mini, 64 rows",
        "llama-3.1-8b fp8, 64 rows",
        "qwen3-8b int8, 2k tokens",
    ),
    "mla_decode": (
        "deepseek-v3, 64 rows, 4k",
        "deepseek-v3 of 8, one row, 128k",
        "kimi-k2 of 8, 64 rows, 4k",
    ),
    "mla_ragged": (
        "deepseek-v3, prompt of 16k",
        "deepseek-v3, 8 x 4 to verify",
        "deepseek-v2-lite, page 16",
    ),
    "experts": (
        "qwen3-30b-a3b, one row",
        "qwen3-30b-a3b int8, 8 rows",
        "qwen3-30b-a3b int4, 2k tokens",
        "mixtral-8x7b int4-64, 8 rows",
        "gpt-oss-20b, 64 rows",
        "gpt-oss-20b mxfp4, one row",
        "gpt-oss-20b mxfp4, 8k tokens",
        "deepseek-v3, 1 of 8, fp8, 2k tokens",
        "mixtral-8x7b, 2k tokens",  # 168
        "nemotron-3-nano fp8, 8 rows",
    ),
    "quant_matmul": (
        "llama-3.1-8b o, one row",
        "llama-3.1-8b gate-up, 64 rows",
        "llama-3.1-8b gate-up, Q4_K",
        "Q4_K, 128 rows",  # 168
        "llama-3.1-8b gate-up, Q8_0",
        "llama-3.1-8b gate-up, NF4",
        "one scale a column, 8 rows",
    ),
    "draw": ("llama-3.1-8b, greedy, 64 rows", "gemma-3-27b, 256 rows"),
    "ssm_scan": (
        "mamba-2.8b, prompt 2k",
        "nemotron-h-8b, 64 rows",
        "falcon-h1-34b, 4 prompts 1k",  # all 255
        "qwen3-next-80b, 64 rows",
        "qwen3-next-80b, prompt 2k",
    ),
    "causal_conv": ("mamba2-2.7b, 64 rows", "qwen3-next-80b, 64 rows"),
}
CASES = tuple(case for case in NAMED if case.name in _NAMES.get(case.kernel, ()))


def unknown() -> set[tuple[str, str]]:
    """Kernels and names that no case has, and kernels of which there is none here."""
    chosen = {(kernel, name) for kernel, names in _NAMES.items() for name in names}
    missing = {(case.kernel, "") for case in NAMED} - {(kernel, "") for kernel in _NAMES}
    return chosen - {(case.kernel, case.name) for case in CASES} | missing
