"""GLM-4 and GLM-Z1 of 2025 (9B, 32B): GLM-4 with norms behind attention and MLP too."""

from collections.abc import Mapping
from typing import Any

from models.architectures import glm, llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("Glm4ForCausalLM",)
NAMES: Names = {
    **glm.NAMES,
    "layers.*.attention_post_norm": f"{llama.LAYER}.post_self_attn_layernorm",
    "layers.*.mlp_post_norm": f"{llama.LAYER}.post_mlp_layernorm",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    return glm.dense(Fields({**glm.DEFAULTS, **raw}), post_norms=True)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, paired=True)
