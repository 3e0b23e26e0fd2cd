"""Products in PyTorch at shapes of `pallas_kernels`' cases: 4-bit weights, cuBLAS, experts.

Knows nothing of JAX. Where PyTorch has no kernel for a shape, its error is the record.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

Peer = tuple[str, str, Callable[[], Callable[[], Any]]]  # who, case, what makes its call

GROUP = 128  # rows that share a scale
# name of the case: tokens, rows of the matrix, columns
INT4 = {
    "llama-3.1-8b gate-up, one row": (1, 4096, 28672),
    "llama-3.1-8b down, one row": (1, 14336, 4096),
    "llama-3.1-8b gate-up, 64 rows": (64, 4096, 28672),
    "llama-3.1-8b gate-up, 256 rows": (256, 4096, 28672),
}
# name of the case: tokens, experts, chosen, model dim, MLP dim
EXPERTS = {
    "qwen3-30b-a3b, 8 rows": (8, 128, 8, 2048, 768),
    "qwen3-30b-a3b, 64 rows": (64, 128, 8, 2048, 768),
    "qwen3-30b-a3b, 2k tokens": (2048, 128, 8, 2048, 768),
    "mixtral-8x7b, 8 rows": (8, 8, 2, 4096, 14336),
    "mixtral-8x7b, 2k tokens": (2048, 8, 2, 4096, 14336),
}


def products(device: str, quick: bool) -> Iterator[Peer]:
    """The peers of `quant_matmul` and of `experts`; `quick` makes them small."""
    for name, (M, A, C) in INT4.items():
        sizes = (min(M, 3), 2 * GROUP, 64) if quick else (M, A, C)
        yield "PyTorch int4", name, partial(int4_product, device, *sizes)
        yield "cuBLAS bf16", name, partial(bf16_product, device, *sizes)
    for name, (T, E, k, D, F) in EXPERTS.items():
        sizes = (min(T, 9), 4, 2, 64, 32) if quick else (T, E, k, D, F)
        yield "PyTorch grouped_mm", name, partial(experts, device, *sizes)


def int4_product(device: str, M: int, A: int, C: int) -> Callable[[], Any]:
    """A token's product with 4-bit weights in groups, which PyTorch keeps in its own order."""
    import torch

    x = torch.randn(M, A, dtype=torch.bfloat16, device=device)
    scales = torch.randn(A // GROUP, C, 2, dtype=torch.bfloat16, device=device)
    if device == "cpu":
        numbers = torch.randint(0, 16, (C, A), dtype=torch.int32)
        words = torch._convert_weight_to_int4pack_for_cpu(numbers, 2)
        return lambda: torch._weight_int4pack_mm_for_cpu(x, words, GROUP, scales)
    pairs = torch.randint(0, 256, (C, A // 2), dtype=torch.uint8, device=device)
    words = torch._convert_weight_to_int4pack(pairs, 8)
    return lambda: torch._weight_int4pack_mm(x, words, GROUP, scales)


def bf16_product(device: str, M: int, A: int, C: int) -> Callable[[], Any]:
    """The same with weights of 16 bits: what 4 bits must beat."""
    import torch

    x = torch.randn(M, A, dtype=torch.bfloat16, device=device)
    weight = torch.randn(C, A, dtype=torch.bfloat16, device=device)
    return lambda: torch.nn.functional.linear(x, weight)


def experts(device: str, T: int, E: int, k: int, D: int, F: int) -> Callable[[], Any]:
    """Tokens in the order of their experts, two grouped products, and back: all but the routing."""
    import torch

    def normal(*shape: int) -> Any:
        return torch.randn(*shape, dtype=torch.bfloat16, device=device)

    x, gate_up, down = normal(T, D), normal(E, D, 2 * F), normal(E, F, D)
    weights, chosen = torch.randn(T, E, device=device).softmax(1).topk(k)
    order = chosen.flatten().argsort()
    token, weight = order // k, weights.flatten()[order, None].bfloat16()
    ends = chosen.flatten().bincount(minlength=E).cumsum(0).int()

    def run() -> Any:
        gate, up = torch._grouped_mm(x[token], gate_up, offs=ends).chunk(2, dim=-1)
        hidden = torch.nn.functional.silu(gate) * up
        out = torch._grouped_mm(hidden, down, offs=ends) * weight
        return torch.zeros_like(x).index_add(0, token, out)

    return run
