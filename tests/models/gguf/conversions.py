"""What llama.cpp's converter does to the tensors of families with experts and states, once more.

Names come from the package gguf's own tables. That the numbers are the converter's, bit for bit,
says `recorded.json`, with which `test_stated.py` compares them.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.models.gguf.files import factors, gguf, in_pairs, together
from tests.models.gguf.unpacking import unpacked

Arrays = Mapping[str, np.ndarray]
Config = Mapping[str, Any]

PAIRED = (
    "deepseek",
    "granitemoe",
    "granitehybrid",
    "nemotron_h",
    "nemotron_h_moe",
    "mistral3",
    "olmo",
    "granite_swa",
    "minicpm",
)
FUSED = ("falcon", "gptneox", "bloom")  # queries, keys and values of each head of keys
GRANITE_SWA = {
    "self_attn.sinks": "attn_sinks",
    "block_sparse_moe.router.weight": "ffn_gate_inp",
    "block_sparse_moe.experts.gate_up_proj": "ffn_gate_up_exps",
    "block_sparse_moe.experts.down_proj": "ffn_down_exps",
    "shared_mlp.input_linear.weight": "ffn_up_shexp",
    "shared_mlp.output_linear.weight": "ffn_down_shexp",
}
FLAT = (
    "kimi-linear",
    "mamba",
    "jamba",
    "qwen3next",
    "qwen35",
    "qwen35moe",
)  # vectors, that others have as [n, 1]
ALIKE = {  # which older packages do not know -> one whose tensors it calls alike
    "deepseek32": "glm-dsa", "hy_v3": "hunyuan-moe", "cohere2moe": "dots1", "mellum": "qwen3moe",
    "granite_swa": "granite",
}  # fmt: skip
ADDED = ("qwen3next", "qwen35", "qwen35moe")  # one, to norms
NAMES = (  # what the converter calls tensors before it looks for their names
    (r"e_score_correction_bias", "e_score_correction.bias"),
    (r"expert_bias$", "expert_bias.bias"),
    (r"\.dt_bias$", ".dt_proj.bias"),
    (r"experts\.#\.", "experts."),
    (r"backbone(\.layers\.\d+)\.mixer\.experts", r"model\1.mlp.experts"),
    (r"(\.layers\.\d+)\.feed_forward\.experts\.(gate|up|down)", r"\1.mlp.experts.\2"),
    (r"model\.(layers\.\d+\.feed_forward\.experts\.w)", r"\1"),
    (r"(experts\.mlp\.[wv]\d)$", r"\1.weight"),
    (r"correct_output_scale$", "correct_output_scale.weight"),
    (r"projections\.#\.weight$", "projections.weight"),
)


def converted(family: str, config: Config, tensors: Arrays) -> dict[str, np.ndarray]:
    """The tensors of a file of this family."""
    known = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
    for name, alike in ALIKE.items():
        known.setdefault(name, known[alike])
    counts = ("n_layers", "num_layers", "num_hidden_layers", "n_layer")
    layers = next(config[name] for name in counts if name in config)
    tables = [  # the case of qwen3next has a dense layer, which its models do not
        gguf.get_tensor_name_map(known[one], layers) for one in (family, "llama")
    ]
    found = factors(config)
    for name, array in together(unpacked(family, config, tensors)).items():
        for one, part in _apart(name, array, config):
            for pattern, called in NAMES:
                one = re.sub(pattern, called, one)
            if family == "bloom":
                one = one.removeprefix("transformer.")
            names = (table.get_name(one, (".weight", ".bias")) for table in tables)
            theirs = one if one.startswith(("blk.", "rope_")) else next(filter(None, names))
            if family == "falcon-h1":
                part = _multiplied(one, part, config)
            found[theirs] = np.ascontiguousarray(_turned(family, one, theirs, part, config))
    return found


def _apart(name: str, array: np.ndarray, config: Config) -> list[tuple[str, np.ndarray]]:
    """Tensors that become several."""
    layer = next((part for part in name.split(".") if part.isdigit()), "")
    whole = name.partition(f".{layer}.")[2]
    if "SWA" in config["architectures"][0] and whole in GRANITE_SWA:
        return [(f"blk.{layer}.{GRANITE_SWA[whole]}.weight", array)]
    if name.endswith("kv_b_proj.weight"):
        heads, size = config["num_attention_heads"], config["qk_nope_head_dim"]
        both = array.reshape(heads, -1, array.shape[-1])
        k, v = both[:, :size].swapaxes(1, 2), both[:, size:]
        return [(name.replace("kv_b", "k_b"), k), (name.replace("kv_b", "v_b"), v)]
    if name.endswith("input_linear.weight"):
        dense = not config.get("num_local_experts", 8)
        kind = "exps" if "sparse" in name else "shexp"
        halves = zip(("gate", "up"), np.split(array, 2, axis=-2), strict=True)
        end = ".weight" if dense else f"_{kind}.weight"
        return [(f"blk.{layer}.ffn_{one}{end}", half) for one, half in halves]
    if name.endswith("shared_mlp.output_linear.weight") and not config.get("num_local_experts", 8):
        return [(f"blk.{layer}.ffn_down.weight", array)]
    if name.endswith("experts.gate_up_proj"):
        halves = np.split(array.swapaxes(1, 2), 2, axis=1)
        return [
            (f"blk.{layer}.ffn_{one}_exps.weight", half)
            for one, half in zip(("gate", "up"), halves, strict=True)
        ]
    if name.endswith("experts.down_proj"):
        return [(f"blk.{layer}.ffn_down_exps.weight", array.swapaxes(1, 2))]
    if name.endswith("in_proj_qkvz.weight"):
        heads, key = config["linear_num_key_heads"], config["linear_key_head_dim"]
        groups = array.reshape(heads, -1, array.shape[1])
        value = (groups.shape[1] - 2 * key) // 2
        parts = np.split(groups, [key, 2 * key, 2 * key + value], axis=1)
        q, k, v, z = (part.reshape(-1, array.shape[1]) for part in parts)
        return [
            (f"blk.{layer}.attn_qkv.weight", np.concatenate([q, k, v])),
            (f"blk.{layer}.attn_gate.weight", z),
        ]
    return [(name, array)]


def _turned(family: str, name: str, theirs: str, array: np.ndarray, config: Config) -> np.ndarray:
    if family in PAIRED and re.search(r"[qk]_proj\.(weight|bias)$", name):
        key = "num_attention_heads" if "q_proj" in name else "num_key_value_heads"
        array = in_pairs(array, config[key])
    if family in FUSED and "query_key_value" in name:
        array = _behind_each_other(family, array, config)
    if family in ADDED and name.endswith("norm.weight") and "linear_attn" not in name:
        array = array + np.float32(1)
    if family.startswith("qwen35") and "linear_attn" in name:
        array = _by_number(name, array, config)
    if name.endswith("A_log"):
        array = -np.exp(array)
    if family == "kimi-linear" and "conv1d" in name:
        array = array.reshape(1, -1, 1, array.shape[-1])
    if ".conv1d.weight" in name or ".conv.conv.weight" in name:
        array = array.squeeze(1)
    if theirs.endswith(("ssm_a", "ssm_d")) and family not in FLAT:
        array = array[:, None]
    if theirs.endswith("ssm_norm.weight") and ".norm" in name and "linear_attn" not in name:
        groups = config.get("n_groups", config.get("mamba_n_groups"))
        array = array.reshape(groups, -1)
    if "experts.mlp." in name:
        array = array.reshape(config["ffn_config"]["moe_num_experts"], -1, array.shape[-1])
        array = array.swapaxes(1, 2) if "w2" in name else array
    return array


def _behind_each_other(family: str, array: np.ndarray, config: Config) -> np.ndarray:
    """All queries, all keys, all values."""
    heads = config.get("num_attention_heads") or config["n_head"]
    groups = config.get("num_kv_heads", 1) if family == "falcon" else heads
    each = heads // groups
    parts = array.reshape(groups, each + 2, -1, *array.shape[1:])
    q, k, v = np.split(parts, [each, each + 1], axis=1)
    return np.concatenate([part.reshape(-1, *array.shape[1:]) for part in (q, k, v)])


def _by_number(name: str, array: np.ndarray, config: Config) -> np.ndarray:
    """Heads of values by their number among those of a head of keys."""
    keys, values = config["linear_num_key_heads"], config["linear_num_value_heads"]
    size, before = config["linear_value_head_dim"], 2 * keys * config["linear_key_head_dim"]

    def moved(rows: np.ndarray) -> np.ndarray:
        heads = rows.reshape(keys, values // keys, -1, *rows.shape[1:])
        return heads.swapaxes(0, 1).reshape(rows.shape)

    if "norm" in name:
        return array
    if "out_proj" in name:
        return moved(array.T).T
    whole = "in_proj_qkv" in name or "conv1d" in name
    assert not whole or len(array) == before + values * size
    return np.concatenate([array[:before], moved(array[before:])]) if whole else moved(array)


def _multiplied(name: str, array: np.ndarray, config: Config) -> np.ndarray:
    """Falcon-H1's factors; biases are not multiplied by those that follow their products."""

    def factor(key: str) -> float:
        return config.get(f"{key}_multiplier", 1.0)

    entering, mlp = factor("attention_in"), config.get("mlp_multipliers", [1.0, 1.0])
    factors: dict[str, Callable[[], float]] = {
        "down_proj": lambda: mlp[1], "gate_proj": lambda: mlp[0],
        "k_proj": lambda: factor("key") * entering, "q_proj": lambda: entering,
        "v_proj": lambda: entering, "o_proj": lambda: factor("attention_out"),
        "out_proj": lambda: factor("ssm_out"), "in_proj": lambda: factor("ssm_in"),
        "lm_head": lambda: factor("lm_head"), "embed_tokens": lambda: factor("embedding"),
    }  # fmt: skip
    part = next((one for one in factors if one in name), "")
    if part == "k_proj":  # one after the other, which rounds twice
        return array * np.float32(factor("key")) * np.float32(entering)
    if part:
        array = array * np.float32(factors[part]())
    if part == "in_proj":
        inner, state = config["mamba_d_ssm"], config["mamba_n_groups"] * config["mamba_d_state"]
        sizes = [inner, inner, state, state, len(array) - 2 * (inner + state)]
        every = np.repeat(config.get("ssm_multipliers", [1.0] * 5), sizes).astype(np.float32)
        array = array * every[:, None]
    return array
