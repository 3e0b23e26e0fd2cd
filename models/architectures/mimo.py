"""MiMo 7B: Qwen2; the layers that predict further tokens are not read."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama, qwen2
from models.config import ModelConfig
from models.weight_map import weight_map
from models.weights import WeightMap

ARCHITECTURES = ("MiMoForCausalLM",)


def config(raw: Mapping[str, Any]) -> ModelConfig:
    return qwen2.config(raw)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, llama.NAMES, ignored=("model.mtp_layers.*",))
