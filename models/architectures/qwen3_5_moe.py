"""Qwen3.5's text models with experts (35B-A3B, 397B-A17B). Checkpoints that take images have those
of a layer in two tensors, but for quantised ones."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import qwen2_moe, qwen3_5, qwen3_next
from models.config.decoder import ModelConfig
from models.config.fields import MAX_LAYERS
from models.weights.sources import Names, WeightMap

WITH_IMAGES = "Qwen3_5MoeForConditionalGeneration"
ARCHITECTURES = ("Qwen3_5MoeForCausalLM", WITH_IMAGES)
DEFAULTS = {
    **qwen3_next.DEFAULTS, "num_experts": 256, "num_experts_per_tok": 8, "intermediate_size": 1,
}  # fmt: skip
NAMES: Names = {
    **{key: name for key, name in qwen3_5.NAMES.items() if ".mlp." not in key},
    **{key: name for key, name in qwen3_next.NAMES.items() if ".mlp." in key},
}
EXPERTS = f"{qwen2_moe.MLP}.experts"
STACKED: Names = {
    **NAMES,
    "layers.*.mlp.experts.gate_up": f"{EXPERTS}.gate_up_proj",
    "layers.*.mlp.experts.down": f"{EXPERTS}.down_proj",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = qwen3_5.read_text(raw, DEFAULTS, WITH_IMAGES)
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    shared = fields.integer("shared_expert_intermediate_size")
    mixture = qwen2_moe.read_mixture(fields, shared_size=shared, shared_gate=True)
    return qwen3_next.gated(fields, grouped=False, experts=[True] * layers, mixture=mixture)


def weights(config: ModelConfig) -> WeightMap:
    if config.architecture == WITH_IMAGES:
        single = qwen3_5.text_weights(config, NAMES, with_images=True)
        stacked = qwen3_5.text_weights(config, STACKED, with_images=True, expert_rows=True)
        return replace(stacked, otherwise=single)
    return qwen3_5.text_weights(config, NAMES, with_images=False)
