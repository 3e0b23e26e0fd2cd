"""Run by a Python that has PyTorch: `generate` on batches that come as lines on standard input.

    in   [[ids, ...], output_len]        one line each
    out  [seconds, [generated ids, ...]] one line each, after a first line "ready"

Imports nothing of Ingot, and nothing of Ingot imports it.
"""

import json
import sys
from importlib import import_module
from time import perf_counter


def main(folder: str) -> None:
    """Load the model, then answer until the input ends."""
    torch, transformers = import_module("torch"), import_module("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    print("ready", flush=True)
    for line in sys.stdin:
        prompts, output_len = json.loads(line)
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        start = perf_counter()
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=mask, do_sample=False, max_new_tokens=output_len,
                min_new_tokens=output_len, pad_token_id=0,
            )  # fmt: skip
        seconds = perf_counter() - start
        print(json.dumps([seconds, out[:, longest:].tolist()]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
