"""Mellum 2: Qwen3 with experts, and layers with a window that have a base of their own."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama, qwen2_moe
from models.config.decoder import ModelConfig, QKNorm
from models.config.experts import read_first_dense
from models.config.fields import Fields
from models.config.heads import read_head_dim
from models.config.rope import read_layer_ropes
from models.config.windows import FULL, SLIDING, read_layer_types, read_windows
from models.weights.decoder import weight_map
from models.weights.sources import WeightMap

ARCHITECTURES = ("MellumForCausalLM",)
DEFAULTS = {
    "head_dim": 128,
    "sliding_window": 1024,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 896,
    "norm_topk_prob": True,
    "rope_parameters": {FULL: {"rope_theta": 500000.0}, SLIDING: {"rope_theta": 10000.0}},
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    older = raw.get("num_experts") is not None
    names = {} if older else {"num_experts": "num_local_experts"}
    fields = Fields({**DEFAULTS, **raw}, names=names)
    ropes = read_layer_ropes(fields, read_head_dim(fields))
    bias = fields.flag("attention_bias", False)
    return llama.dense(
        fields,
        windows=read_windows(fields, _slides),
        ropes=[ropes[one] for one in read_layer_types(fields, _slides)],
        experts=read_first_dense(fields),
        mixture=qwen2_moe.read_mixture(fields),
        qk_norm=QKNorm(),
        qkv_bias=bias,
        o_bias=bias,
    )


def _slides(layer: int) -> bool:
    return False


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, qwen2_moe.NAMES, ignored=("mtp.*",))
