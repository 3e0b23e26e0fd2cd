"""A Llama of sizes that packed weights take, and its logits in float64.

Owns a second writing of the equations, in NumPy, whose products can be exchanged. Knows nothing of
how weights are packed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from models.checkpoints.loading import LoadedModel, load
from models.sharding import make_mesh
from tests.models.checkpoints.safetensors_files import write_checkpoint
from tests.parity.paged import PagedRun

D, F, N, K, H, V, LAYERS = 128, 256, 8, 2, 32, 67, 2
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "vocab_size": V,
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": N,
    "num_key_value_heads": K,
    "head_dim": H,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
LINEAR = {
    "self_attn.q_proj": (N * H, D),
    "self_attn.k_proj": (K * H, D),
    "self_attn.v_proj": (K * H, D),
    "self_attn.o_proj": (D, N * H),
    "mlp.gate_proj": (F, D),
    "mlp.up_proj": (F, D),
    "mlp.down_proj": (D, F),
}
TOKENS = [3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9, 32]
Tensors = dict[str, np.ndarray]
Product = Callable[[np.ndarray, np.ndarray, str], np.ndarray]  # x [T, A], W [C, A], its name -> x W


def tensors() -> Tensors:
    """A checkpoint's tensors, in float32."""
    rng = np.random.default_rng(0)
    found = {
        "model.embed_tokens.weight": rng.normal(size=(V, D)),
        "model.norm.weight": rng.uniform(0.5, 1.5, D),
        "lm_head.weight": rng.normal(size=(V, D)) / 10,
    }
    for layer in range(LAYERS):
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"model.layers.{layer}.{name}.weight"] = rng.uniform(0.5, 1.5, D)
        for name, shape in LINEAR.items():
            values = rng.normal(size=shape) * 1.3 / np.sqrt(shape[1])
            found[f"model.layers.{layer}.{name}.weight"] = values
    return {name: values.astype(np.float32) for name, values in found.items()}


def is_linear(name: str) -> bool:
    """Whether it is a weight of the layers' linear maps."""
    return "_proj." in name


def plain(x: np.ndarray, w: np.ndarray, _: str) -> np.ndarray:
    """A product without rounding."""
    return x @ w.T


def reference(weights: Tensors, product: Product = plain) -> np.ndarray:
    """Logits [T, V] of TOKENS in float64; every linear map goes through `product`."""
    wide = {name: values.astype(np.float64) for name, values in weights.items()}

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return product(x, wide[f"{name}.weight"], name)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * wide[f"{name}.weight"]

    x = wide["model.embed_tokens.weight"][TOKENS]
    for layer in (f"model.layers.{i}" for i in range(LAYERS)):
        h = norm(x, f"{layer}.input_layernorm")
        q, k, v = (linear(h, f"{layer}.self_attn.{c}_proj").reshape(len(x), -1, H) for c in "qkv")
        x = x + linear(_attention(_turned(q), _turned(k), v), f"{layer}.self_attn.o_proj")
        h = norm(x, f"{layer}.post_attention_layernorm")
        gate, up = (linear(h, f"{layer}.mlp.{part}_proj") for part in ("gate", "up"))
        x = x + linear(gate / (1 + np.exp(-gate)) * up, f"{layer}.mlp.down_proj")
    return linear(norm(x, "model.norm"), "lm_head")


def _turned(x: np.ndarray) -> np.ndarray:
    angles = np.arange(len(x))[:, None] * 10000.0 ** (-np.arange(0, H, 2) / H)  # [T, H / 2]
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def _attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    k, v = (np.repeat(each, N // K, axis=1) for each in (k, v))
    scores = np.einsum("tnh,snh->nts", q, k) / np.sqrt(H)
    scores = np.where(np.tri(len(q), dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    out = np.einsum("nts,snh->tnh", weights / weights.sum(-1, keepdims=True), v)
    return out.reshape(len(q), -1)


def write(folder: Path, weights: Tensors, **config: Any) -> Path:
    """Write them as a checkpoint."""
    write_checkpoint(folder, CONFIG | config, weights)
    return folder


def loaded(folder: Path, shards: int = 1, **options: Any) -> LoadedModel:
    """The checkpoint on `shards` devices, in float32."""
    return load(folder, make_mesh(shards), dtype="float32", **options)


def logits(model: LoadedModel) -> np.ndarray:
    """Logits [T, V] of TOKENS: all but the last in a prefill, and that one in a decode step."""
    return PagedRun(model).follow(TOKENS, len(TOKENS) - 1)["one piece"]


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, in deviations of what was expected."""
    return float(np.abs(found - expected).max() / expected.std())
