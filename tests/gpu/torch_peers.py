"""The same work in PyTorch, where it is installed: SDPA, cuBLAS, transformers' generate.

Runs in a process without JAX, so that each has the GPU's memory for itself.
"""

from pathlib import Path
from time import perf_counter
from typing import Any

from tests.gpu.records import Log

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
    """Attention of contiguous keys and values (PyTorch has no pages)."""
    import torch

    if not torch.cuda.is_available():
        log.add("skipped", name="peers", why="PyTorch finds no GPU")
        return
    for queries, shapes in ((1, DECODE), (None, PREFILL)):
        for name, (B, N, K, H, keys) in shapes.items():
            q = torch.randn(B, N, queries or keys, H, dtype=torch.bfloat16, device="cuda")
            k, v = (torch.randn(B, K, keys, H, dtype=torch.bfloat16, device="cuda") for _ in "kv")

            def attend(q: Any = q, k: Any = k, v: Any = v) -> Any:
                return torch.nn.functional.scaled_dot_product_attention(
                    q, k, v, is_causal=q.shape[2] > 1, enable_gqa=True
                )

            log.add("peers", peer="PyTorch SDPA", case=name, us=1e6 * _seconds(attend))


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


def _seconds(call: Any) -> float:
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
