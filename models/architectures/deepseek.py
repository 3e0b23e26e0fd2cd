"""DeepSeek V1 (DeepSeekMoE 16B): Llama with many small experts, some of them for all tokens."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.experts import read_first_dense, read_routed_mixture, routed_names
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("DeepseekForCausalLM",)
NAMES: Names = {**llama.NAMES, **routed_names(f"{llama.LAYER}.mlp", "shared_experts")}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields(raw)
    fields.option("scoring_func", ("softmax",), "softmax")
    fields.option("topk_method", ("greedy",), "greedy")
    renormalize = fields.flag("norm_topk_prob", False)
    bias = fields.flag("attention_bias", False)
    return llama.dense(
        fields,
        experts=read_first_dense(fields),
        mixture=read_routed_mixture(fields, renormalize=renormalize),
        qkv_bias=bias,
        o_bias=bias,
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
