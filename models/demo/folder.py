"""The demo model as a Hugging Face folder: `config.json`, `generation_config.json`, weights.

Owns the names of the tensors and the bytes of `model.safetensors` (bfloat16, `[out, in]` as
Hugging Face stores them). The tokenizer's files are written by `vocabulary.py`.
"""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from models.demo.llama import Params, Shape

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
MATRICES = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}


def config(shape: Shape, eos: list[int], pad: int) -> dict[str, Any]:
    """What `config.json` says about a model of this shape."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.V,
        "hidden_size": shape.D,
        "intermediate_size": shape.F,
        "num_hidden_layers": shape.L,
        "num_attention_heads": shape.N,
        "num_key_value_heads": shape.K,
        "head_dim": shape.H,
        "hidden_act": "silu",
        "max_position_embeddings": shape.positions,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.theta,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "torch_dtype": "bfloat16",
    }


def tensors(params: Params) -> dict[str, np.ndarray]:
    """The parameters under their Hugging Face names, matrices as `[out, in]`."""
    named = {"model.embed_tokens.weight": params["embed"], "model.norm.weight": params["norm"]}
    for index, layer in enumerate(params["layers"]):
        prefix = f"model.layers.{index}"
        named |= {f"{prefix}.{name}.weight": layer[key].T for key, name in MATRICES.items()}
        named |= {f"{prefix}.{name}.weight": layer[key] for key, name in NORMS.items()}
    return {name: np.asarray(value).astype(BFLOAT16) for name, value in named.items()}


def save(folder: Path, shape: Shape, params: Params, eos: list[int], pad: int) -> None:
    """Writes the two configurations and the weights; the same parameters give the same bytes."""
    settings = {"eos_token_id": eos, "pad_token_id": pad, "do_sample": False}
    for name, content in (("config", config(shape, eos, pad)), ("generation_config", settings)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    named, place = tensors(params), 0
    for name, value in named.items():
        place += value.nbytes
        offsets = [place - value.nbytes, place]
        header[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    partial = folder / "model.safetensors.partial"
    with partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for value in named.values():
            file.write(np.ascontiguousarray(value).tobytes())
    partial.replace(folder / "model.safetensors")


def load(folder: Path) -> tuple[Shape, Params]:
    """The shape and the float32 parameters of a folder written by `save`."""
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = Shape(
        V=raw["vocab_size"], D=raw["hidden_size"], F=raw["intermediate_size"],
        L=raw["num_hidden_layers"], N=raw["num_attention_heads"], K=raw["num_key_value_heads"],
        H=raw["head_dim"], theta=raw["rope_theta"], eps=raw["rms_norm_eps"],
        positions=raw["max_position_embeddings"],
    )  # fmt: skip
    data = (folder / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])

    def tensor(name: str) -> np.ndarray:
        begin, end = header[f"{name}.weight"]["data_offsets"]
        flat = np.frombuffer(data[start + begin : start + end], BFLOAT16).astype(np.float32)
        return flat.reshape(header[f"{name}.weight"]["shape"])

    layers = []
    for index in range(shape.L):
        prefix = f"model.layers.{index}"
        layer = {key: tensor(f"{prefix}.{name}").T for key, name in MATRICES.items()}
        layers.append(layer | {key: tensor(f"{prefix}.{name}") for key, name in NORMS.items()})
    return shape, {
        "embed": tensor("model.embed_tokens"), "layers": layers, "norm": tensor("model.norm"),
    }  # fmt: skip
