"""VaultGemma: Gemma 2 without the norms behind attention and MLP."""

from collections.abc import Mapping
from typing import Any

from models.architectures import gemma2, llama
from models.config import ModelConfig
from models.weight_map import Names, weight_map
from models.weights import WeightMap

ARCHITECTURES = ("VaultGemmaForCausalLM",)
NAMES: Names = {
    **llama.NAMES,
    "layers.*.mlp_norm": f"{llama.LAYER}.pre_feedforward_layernorm",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    return gemma2.windowed(raw, post_norms=False)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
