"""The same work in PyTorch, where it is installed: SDPA, products, transformers' generate.

Runs in a process without JAX, so that each has the GPU's memory for itself.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from tests.gpu.records import Log
from tests.gpu.torch_products import Peer, products

# name of the case: rows, query heads, key/value heads, head dim, keys
DECODE = {
    "llama-3.1-8b page 64": (64, 32, 8, 128, 4096),
    "llama-3.1-8b one row, 1k": (1, 32, 8, 128, 1024),
    "llama-3.1-8b one row, 128k": (1, 32, 8, 128, 131072),
}
PREFILL = {"llama-3.1-8b prompt 2k": (1, 32, 8, 128, 2048), "prompt 16k": (1, 32, 8, 128, 16384)}
LLAMA = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 8192, "rope_theta": 500000.0,
}  # fmt: skip


def kernels(log: Log, folder: Path, quick: bool) -> None:
    """Attention and products; small and on the CPU for a trial, where only errors say anything."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not quick:
        log.add("skipped", name="peers", why="PyTorch finds no GPU")
        return
    for peer, name, make in (*products(device, quick), *attention(device, quick)):
        try:
            call = make()
            time = _seconds(call) if device == "cuda" else _once(call)
        except Exception as error:  # a kernel that PyTorch lacks is a finding
            said = str(error).strip().splitlines() or [""]
            log.add(
                "peers", peer=peer, case=name, failed=f"{type(error).__name__}: {said[0][:200]}"
            )
        else:
            log.add("peers", peer=peer, case=name, us=1e6 * time)


def attention(device: str, quick: bool) -> Iterator[Peer]:
    """Attention of contiguous keys and values (PyTorch has no pages)."""
    for queries, shapes in ((1, DECODE), (None, PREFILL)):
        for name, (B, N, K, H, keys) in shapes.items():
            sizes = (min(B, 2), N, K, H, 64) if quick else (B, N, K, H, keys)
            yield "PyTorch SDPA", name, partial(_attention, device, queries, *sizes)


def _attention(
    device: str, queries: int | None, B: int, N: int, K: int, H: int, keys: int
) -> Callable[[], Any]:
    import torch

    q = torch.randn(B, N, queries or keys, H, dtype=torch.bfloat16, device=device)
    k, v = (torch.randn(B, K, keys, H, dtype=torch.bfloat16, device=device) for _ in "kv")
    return lambda: torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=queries is None, enable_gqa=True
    )


def generate(log: Log, folder: Path, quick: bool, rows: int) -> None:
    """transformers' generate on the model that `whole_engine` runs."""
    import torch
    import transformers

    small = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512}  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = transformers.LlamaConfig(**{**LLAMA, **(small if quick else {})})
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    prompt = torch.randint(1, 500, (rows, 8 if quick else 128), device=device)
    tokens = 4 if quick else 64

    def run(new: int) -> float:
        start = perf_counter()
        model.generate(prompt, max_new_tokens=new, min_new_tokens=new, do_sample=False)
        if device == "cuda":
            torch.cuda.synchronize()
        return perf_counter() - start

    run(2)
    seconds = run(tokens + 1) - run(1)  # without the prompt
    log.add("transformers", rows=rows, tokens_per_s=rows * tokens / seconds,
            decode_ms=1e3 * seconds / tokens)  # fmt: skip


def _once(call: Callable[[], Any]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def _seconds(call: Callable[[], Any]) -> float:
    """Median of CUDA graph replays, by events."""
    import torch

    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(16):
            call()
    times = []
    for _ in range(9):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / 16)
    return sorted(times)[len(times) // 2]
