"""What llama.cpp's converter does to the tensors of families that pack queries, keys and values."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.models.gguf.files import in_pairs

Arrays = Mapping[str, np.ndarray]
Config = Mapping[str, Any]


def unpacked(family: str, config: Config, tensors: Arrays) -> dict[str, np.ndarray]:
    """The tensors before they are renamed; those that are called as the file does stay so."""
    change = _CHANGES.get(family)
    return change(config, dict(tensors)) if change else dict(tensors)


def _baichuan(config: Config, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    def apart(array: np.ndarray) -> list[np.ndarray]:
        q, k, v = np.split(array, 3)
        return [in_pairs(one, config["num_attention_heads"]) for one in (q, k)] + [v]

    return _split(tensors, "self_attn.W_pack.weight", apart)


def _internlm_2(config: Config, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]

    def apart(array: np.ndarray) -> list[np.ndarray]:
        each = array.reshape(groups, heads // groups + 2, -1, array.shape[1])
        q, k, v = (
            part.reshape(-1, array.shape[1]) for part in (each[:, :-2], each[:, -2], each[:, -1])
        )
        return [in_pairs(q, heads), in_pairs(k, groups), v]

    return _split(tensors, "attention.wqkv.weight", apart)


def _split(
    tensors: dict[str, np.ndarray], end: str, apart: Callable[[np.ndarray], list[np.ndarray]]
) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        if not name.endswith(end):
            found[name] = array
            continue
        layer = name.split(".")[2]
        found |= {
            f"blk.{layer}.attn_{one}.weight": part
            for one, part in zip("qkv", apart(array), strict=True)
        }
    return found


def _deci(config: Config, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    size = config["hidden_size"] // config["num_attention_heads"]
    return {
        name: in_pairs(array, len(array) // size)
        if re.search(r"[qk]_proj\.weight$", name)
        else array
        for name, array in tensors.items()
    }


def _apertus(config: Config, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without what are keys."""
    return {name: array for name, array in tensors.items() if "act_fn" not in name}


def _hy(config: Config, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The converter does not call the bias of the choice one."""
    return {
        f"blk.{name.split('.')[2]}.exp_probs_b" if name.endswith("expert_bias") else name: array
        for name, array in tensors.items()
    }


def _chatglm(config: Config, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix("transformer."): array for name, array in tensors.items()}


def _minicpm_3(config: Config, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Whose keys and values of latents stay together."""
    end = "self_attn.kv_b_proj.weight"
    return {
        f"blk.{name.split('.')[2]}.attn_kv_b.weight" if name.endswith(end) else name: array
        for name, array in tensors.items()
    }


def _gemma_4(config: Config, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = {
        "layer_scalar": "layer_output_scale.weight",
        "experts.gate_up_proj": "ffn_gate_up_exps.weight",
        "experts.down_proj": "ffn_down_exps.weight",
        "router.scale": "ffn_gate_inp.scale",
        "router.proj.weight": "ffn_gate_inp.weight",
        "router.per_expert_scale": "ffn_down_exps.scale",
    }
    found: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        end = next((one for one in names if name.endswith(one)), "")
        found[f"blk.{name.split('.')[2]}.{names[end]}" if end else name] = array
    pairs = config["global_head_dim"] // 2
    share = config["rope_parameters"]["full_attention"]["partial_rotary_factor"]
    divisors = np.where(np.arange(pairs) < int(share * pairs), 1, 1e30)
    return found | {"rope_freqs.weight": divisors.astype(np.float32)}


_CHANGES: Mapping[str, Callable[[Config, dict[str, np.ndarray]], dict[str, np.ndarray]]] = {
    "baichuan": _baichuan,
    "internlm2": _internlm_2,
    "deci": _deci,
    "apertus": _apertus,
    "chatglm": _chatglm,
    "minicpm3": _minicpm_3,
    "hy_v3": _hy,
    "gemma4": _gemma_4,
}
