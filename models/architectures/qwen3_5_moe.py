"""Qwen3.5's text models with experts (35B-A3B, 397B-A17B): the experts of all in two tensors."""

from collections.abc import Mapping
from typing import Any

from models.architectures import qwen2_moe, qwen3_5, qwen3_next
from models.config import ModelConfig
from models.fields import MAX_LAYERS, Fields
from models.weight_map import Names, weight_map
from models.weights import WeightMap

ARCHITECTURES = ("Qwen3_5MoeForCausalLM",)
DEFAULTS = {
    **qwen3_next.DEFAULTS, "num_experts": 256, "num_experts_per_tok": 8, "intermediate_size": 1,
}  # fmt: skip
EXPERTS = f"{qwen2_moe.MLP}.experts"
NAMES: Names = {
    **{key: name for key, name in qwen3_5.NAMES.items() if ".mlp." not in key},
    **{key: name for key, name in qwen3_next.NAMES.items() if ".mlp." in key},
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    shared = fields.integer("shared_expert_intermediate_size")
    mixture = qwen2_moe.read_mixture(fields, shared_size=shared, shared_gate=True)
    return qwen3_next.gated(fields, grouped=False, experts=[True] * layers, mixture=mixture)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, ignored=("mtp.*",))
