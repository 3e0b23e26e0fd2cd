"""VaultGemma: Gemma 2 without the norms behind attention and MLP."""

from collections.abc import Mapping
from typing import Any

from models.architectures import gemma2, llama
from models.config.decoder import ModelConfig
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("VaultGemmaForCausalLM",)
NAMES: Names = {
    **llama.NAMES,
    "layers.*.mlp_norm": f"{llama.LAYER}.pre_feedforward_layernorm",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    return gemma2.windowed(raw, post_norms=False)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
