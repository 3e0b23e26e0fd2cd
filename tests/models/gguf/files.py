"""Writes GGUF files for tests through the package gguf, as llama.cpp's converter would."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.gguf.families.registry import FAMILIES

gguf = pytest.importorskip("gguf")

Arrays = Mapping[str, np.ndarray]
KEYS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "sliding_window": "attention.sliding_window",
    "sliding_window_pattern": "attention.sliding_window_pattern",
    "rope_local_base_freq": "rope.freq_base_swa",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "layer_norm_epsilon": "attention.layer_norm_epsilon",
    "num_local_experts": "expert_count",
    "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "n_embd": "embedding_length",
    "n_head": "attention.head_count",
    "n_layer": "block_count",
    "n_positions": "context_length",
}


def metadata(family: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """llama.cpp's keys for a config.json."""
    found = {f"{family}.{KEYS[k]}": v for k, v in config.items() if k in KEYS and v is not None}
    if family.startswith("qwen"):  # where no case uses it
        found.pop(f"{family}.attention.sliding_window", None)
    width, count = (
        config.get(name, config.get(older))
        for name, older in (("hidden_size", "n_embd"), ("num_attention_heads", "n_head"))
    )
    dim = config.get("head_dim") or width // count
    found[f"{family}.attention.key_length"] = found[f"{family}.attention.value_length"] = dim
    if family == "gpt2":
        found["gpt2.feed_forward_length"] = 4 * width
    else:
        rotated = int(dim * config.get("partial_rotary_factor", 1.0))
        found[f"{family}.rope.dimension_count"] = rotated
    if "original_max_position_embeddings" in config:
        found[f"{family}.rope.scaling.original_context_length"] = config[
            "original_max_position_embeddings"
        ]
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind in ("linear", "yarn"):
        found[f"{family}.rope.scaling.type"] = kind
        found[f"{family}.rope.scaling.factor"] = float(scaling["factor"])
    if "original_max_position_embeddings" in scaling and kind == "yarn":
        found[f"{family}.rope.scaling.original_context_length"] = scaling[
            "original_max_position_embeddings"
        ]
    eos = config.get("eos_token_id", 2)
    found["tokenizer.ggml.eos_token_id"] = eos if isinstance(eos, int) else eos[0]
    found["tokenizer.ggml.bos_token_id"] = config.get("bos_token_id", 1)
    if isinstance(eos, list):
        found["tokenizer.ggml.eot_token_id"] = eos[1]
    return found


def converted(family: str, config: Mapping[str, Any], tensors: Arrays) -> dict[str, np.ndarray]:
    """llama.cpp's tensors for those of a checkpoint."""
    if family == "gpt-oss":
        tensors = apart(tensors)
    rules = FAMILIES[family]
    theirs = {ours: gguf_name for gguf_name, ours in rules.names.items()}
    found: dict[str, np.ndarray] = {}
    for name, array in together(tensors).items():
        if name.startswith("blk."):
            found[name] = array
            continue
        module, _, leaf = name.rpartition(".")
        layer = next((part for part in module.split(".") if part.isdigit()), "")
        gguf_name = theirs[module.replace(f".{layer}.", ".*.", 1) if layer else module]
        last = gguf_name.rpartition(".")[2]
        if family == "llama" and last in ("attn_q", "attn_k"):
            key = "num_attention_heads" if last == "attn_q" else "num_key_value_heads"
            array = in_pairs(array, config[key])
        if family.startswith("gemma") and last.endswith("norm"):
            array = array + np.float32(1)
        if family == "gpt2" and array.ndim == 2 and "blk" in gguf_name:
            array = array.T
        found[f"{gguf_name.replace('*', layer)}.{leaf}"] = np.ascontiguousarray(array)
    return found | factors(config)


def apart(tensors: Arrays) -> dict[str, np.ndarray]:
    """gpt-oss's experts and sinks under llama.cpp's names."""
    found: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        match = re.fullmatch(
            r"model\.layers\.(\d+)\..*\.(sinks|(?:gate_up|down)_proj(_bias)?)", name
        )
        if match is None:
            found[name] = array
            continue
        layer, leaf = f"blk.{match[1]}", "bias" if match[3] else "weight"
        turned = array if match[3] or match[2] == "sinks" else array.swapaxes(1, 2)
        if match[2] == "sinks":
            found[f"{layer}.attn_sinks.weight"] = array
        elif match[2].startswith("down"):
            found[f"{layer}.ffn_down_exps.{leaf}"] = np.ascontiguousarray(turned)
        else:
            for first, part in enumerate(("gate", "up")):
                found[f"{layer}.ffn_{part}_exps.{leaf}"] = np.ascontiguousarray(turned[:, first::2])
    return found


def together(tensors: Arrays) -> dict[str, np.ndarray]:
    """With the matrices of all experts of a layer as one: ...experts.#.w1.weight [E, F, D]."""
    found: dict[str, list[np.ndarray]] = {}
    for name in sorted(tensors, key=lambda name: [int(n) for n in re.findall(r"\d+", name)]):
        found.setdefault(re.sub(r"(experts|projections)\.\d+\.", r"\1.#.", name), []).append(
            tensors[name]
        )
    return {k: np.stack(each) if "#" in k else each[0] for k, each in found.items()}


def factors(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The divisors of frequencies, which are tensors."""
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "longrope":
        return {
            f"rope_factors_{which}.weight": np.array(scaling[f"{which}_factor"], np.float32)
            for which in ("long", "short")
        }
    if kind != "llama3":
        return {}
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    plain = config["rope_theta"] ** (-np.arange(0, dim, 2) / dim)
    turns = scaling["original_max_position_embeddings"] * plain / (2 * np.pi)
    slow, fast = scaling["low_freq_factor"], scaling["high_freq_factor"]
    quickness = np.clip((turns - slow) / (fast - slow), 0, 1)
    mixed = (1 - quickness) * plain / scaling["factor"] + quickness * plain
    return {"rope_freqs.weight": (plain / mixed).astype(np.float32)}


def in_pairs(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows that are rotated together become neighbours."""
    halves = array.reshape(heads, 2, -1, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


def write_gguf(
    path: Path,
    family: str,
    keys: Mapping[str, Any],
    tensors: Arrays,
    kind: Callable[[str, np.ndarray], Any] = lambda name, array: None,
) -> Path:
    """Write a file; `kind` says in which of ggml's types a tensor is, None being as it is."""
    writer = gguf.GGUFWriter(path, family)
    for key, value in keys.items():
        add(writer, key, value)
    for name, array in tensors.items():
        block = kind(name, array)
        if block is None:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quantize(array, block), raw_dtype=block)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add(writer: Any, key: str, value: Any) -> None:
    if key == "general.alignment":
        writer.add_custom_alignment(value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    else:
        kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
                 str: writer.add_string}  # fmt: skip
        kinds[type(value)](key, value)
