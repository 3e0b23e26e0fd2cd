"""Flint: Qwen3 with experts, attention sinks, and full layers without positions among windows."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama, qwen2_moe
from models.config.decoder import ModelConfig, QKNorm
from models.config.experts import read_sparse_layers
from models.config.fields import MAX_LAYERS, Fields
from models.config.heads import read_head_dim
from models.config.rope import read_rope
from models.config.windows import read_windows
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("FlintForCausalLM",)
DEFAULTS = {
    "head_dim": 128,
    "sliding_window": 513,
    "mlp_only_layers": [0, 1],
    "num_experts": 256,
    "num_experts_per_tok": 6,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 1024,
    "norm_topk_prob": True,
}
NAMES: Names = {
    **qwen2_moe.NAMES,
    "layers.*.attention.sinks": f"{llama.LAYER}.self_attn.softmax_offset",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    given = {key: value for key, value in raw.items() if value is not None}
    fields = Fields({**DEFAULTS, **given})
    last = fields.integer("num_hidden_layers", high=MAX_LAYERS) - 1
    windows = read_windows(fields, lambda layer: 1 < layer < last and layer % 4 != 1)
    rope, bias = read_rope(fields, read_head_dim(fields)), fields.flag("attention_bias", False)
    shared = fields.integer("shared_expert_intermediate_size")
    return llama.dense(
        fields,
        windows=windows,
        ropes=[rope if window else None for window in windows],
        experts=read_sparse_layers(fields),
        mixture=qwen2_moe.read_mixture(fields, score="sigmoid", shared_size=shared),
        qk_norm=QKNorm(),
        sinks=True,
        qkv_bias=bias,
        o_bias=bias,
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
