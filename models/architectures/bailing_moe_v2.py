"""Ling and Ring 2.0: GLM-4.5 with norms of heads, one tensor for queries, keys and values, and
names of its own.

The layer behind the last, which predicts a further token, is not read.
"""

from collections.abc import Mapping
from typing import Any

from models.architectures import glm4_moe, llama
from models.config.decoder import ModelConfig, QKNorm
from models.config.experts import read_biased_mixture, read_first_dense
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.mtp import layers_behind
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("BailingMoeV2ForCausalLM",)
KEYS = {
    "n_routed_experts": "num_experts",
    "n_shared_experts": "num_shared_experts",
    "scoring_func": "score_function",
}
ATTENTION = f"{llama.LAYER}.attention"
NAMES: Names = {
    **glm4_moe.NAMES,
    "embedding": "model.word_embeddings",
    "layers.*.attention.qkv": f"{ATTENTION}.query_key_value",
    "layers.*.attention.q_norm": f"{ATTENTION}.query_layernorm",
    "layers.*.attention.k_norm": f"{ATTENTION}.key_layernorm",
    "layers.*.attention.o": f"{ATTENTION}.dense",
    "layers.*.mlp.choice_bias": f"{llama.LAYER}.mlp.gate.expert_bias",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields(raw, names=KEYS)
    fields.refuse("norm_head", "use_sliding_window")
    for key in ("use_qk_norm", "moe_router_enable_expert_bias", "norm_topk_prob"):
        fields.required(key)
    return llama.dense(
        fields,
        experts=read_first_dense(fields),
        mixture=read_biased_mixture(fields),
        qk_norm=QKNorm(),
        qkv_bias=fields.flag("use_qkv_bias", False),
        o_bias=fields.flag("use_bias", False),
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, ignored=layers_behind(config))
