"""Architectures that transformers does not have, and its models that compute the same.

Each function takes the tensors of transformers' model and gives those of a published checkpoint:
other names, and queries, keys and values in one tensor. Written from the model code that the
authors publish beside their weights.
"""

import re
from collections.abc import Mapping

import numpy as np

from tests.parity.case import Arrays


def renamed(tensors: Arrays, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """With every part of a name that is a key replaced; longest first."""
    pattern = re.compile("|".join(re.escape(key) for key in sorted(names, key=len, reverse=True)))
    return {pattern.sub(lambda m: names[m[0]], name): one for name, one in tensors.items()}


def joined(tensors: Arrays, module: str, groups: int) -> dict[str, np.ndarray]:
    """q_proj, k_proj and v_proj of every layer as one `module`: group by group, each q, k and v."""
    out = dict(tensors)
    for name in tensors:
        if "q_proj" not in name:
            continue
        three = [out.pop(name.replace("q_proj", f"{x}_proj")) for x in "qkv"]
        parts = zip(*(np.split(one, groups) for one in three), strict=True)
        out[name.replace("q_proj", module)] = np.concatenate([x for group in parts for x in group])
    return out


def exaone(tensors: Arrays) -> Arrays:
    return renamed(tensors, {
        "model.embed_tokens": "transformer.wte",
        "model.layers": "transformer.h",
        "model.norm": "transformer.ln_f",
        "self_attn.o_proj": "attn.attention.out_proj",
        "self_attn": "attn.attention",
        "input_layernorm": "ln_1",
        "post_attention_layernorm": "ln_2",
        "gate_proj": "c_fc_0",
        "up_proj": "c_fc_1",
        "down_proj": "c_proj",
    })  # fmt: skip


def internlm2(tensors: Arrays) -> Arrays:
    return renamed(joined(tensors, "wqkv", groups=2), {
        "embed_tokens": "tok_embeddings",
        "self_attn.o_proj": "attention.wo",
        "self_attn": "attention",
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "feed_forward.w1",
        "mlp.up_proj": "feed_forward.w3",
        "mlp.down_proj": "feed_forward.w2",
        "lm_head": "output",
    })  # fmt: skip


def qwen(tensors: Arrays) -> Arrays:
    return renamed(joined(tensors, "c_attn", groups=1), {
        "model.embed_tokens": "transformer.wte",
        "model.layers": "transformer.h",
        "model.norm": "transformer.ln_f",
        "self_attn.o_proj": "attn.c_proj",
        "self_attn": "attn",
        "input_layernorm": "ln_1",
        "post_attention_layernorm": "ln_2",
        "gate_proj": "w2",
        "up_proj": "w1",
        "down_proj": "c_proj",
    })  # fmt: skip


def chatglm(tensors: Arrays) -> Arrays:
    return renamed(joined(tensors, "query_key_value", groups=1), {
        "model.embed_tokens": "transformer.embedding.word_embeddings",
        "model.layers": "transformer.encoder.layers",
        "model.norm": "transformer.encoder.final_layernorm",
        "self_attn.o_proj": "self_attention.dense",
        "self_attn": "self_attention",
        "gate_up_proj": "dense_h_to_4h",
        "down_proj": "dense_4h_to_h",
        "lm_head": "transformer.output_layer",
    })  # fmt: skip


def bailing(tensors: Arrays) -> Arrays:
    return renamed(joined(tensors, "query_key_value", groups=1), {
        "embed_tokens": "word_embeddings",
        "self_attn.q_norm": "attention.query_layernorm",
        "self_attn.k_norm": "attention.key_layernorm",
        "self_attn.o_proj": "attention.dense",
        "self_attn": "attention",
        "e_score_correction_bias": "expert_bias",
    })  # fmt: skip


def halves(tensors: Arrays, heads: Mapping[str, int]) -> dict[str, np.ndarray]:
    """With rotated pairs, that are neighbours in a head, as the two halves of one."""
    out = dict(tensors)
    for name, one in tensors.items():
        for module, count in heads.items():
            if module in name:
                pairs = one.reshape(count, -1, 2, one.shape[-1])
                out[name] = pairs.swapaxes(1, 2).reshape(one.shape)
    return out


def deepseek(tensors: Arrays) -> Arrays:
    return halves(tensors, {"q_proj": 4, "k_proj": 2})


def baichuan(tensors: Arrays) -> Arrays:
    return joined(tensors, "W_pack", groups=1)


def llama4(tensors: Arrays) -> Arrays:
    return {f"language_model.{name}": one for name, one in tensors.items()}


def gemma3n(tensors: Arrays) -> Arrays:
    return {name.replace("model.", "model.language_model."): one for name, one in tensors.items()}


def qwen3_5_moe(tensors: Arrays) -> Arrays:
    """The experts of a layer stacked, each with the rows of its gate above those of up."""
    names = {name.split(".experts.")[0] for name in tensors if ".experts." in name}
    packed = {name: one for name, one in tensors.items() if ".experts." not in name}
    for mlp in names:
        count = sum(name.startswith(f"{mlp}.experts.") for name in tensors) // 3
        gate, up, down = (
            np.stack([tensors[f"{mlp}.experts.{e}.{part}_proj.weight"] for e in range(count)])
            for part in ("gate", "up", "down")
        )
        packed[f"{mlp}.experts.gate_up_proj"] = np.concatenate([gate, up], axis=1)
        packed[f"{mlp}.experts.down_proj"] = down
    return gemma3n(packed)


def decilm(tensors: Arrays) -> Arrays:
    """Half of the MLP in layer 0, and in layer 2 half of the heads of keys and values."""
    out = dict(tensors)
    for name, one in tensors.items():
        rows, columns = one.shape[0], one.shape[-1]
        if "layers.0.mlp.down_proj" in name:
            out[name] = one[:, : columns // 2]
        elif "layers.0.mlp" in name or re.search("layers.2.*[kv]_proj", name):
            out[name] = one[: rows // 2]
    return out


def same_names(tensors: Arrays) -> Arrays:
    return tensors
