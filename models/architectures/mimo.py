"""MiMo 7B: Qwen2; the layer that predicts a further token is read by `layers/mtp.py` only."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama, qwen2
from models.config.decoder import ModelConfig
from models.weights.decoder import weight_map
from models.weights.mtp import MTPNames
from models.weights.sources import WeightMap

ARCHITECTURES = ("MiMoForCausalLM",)


def config(raw: Mapping[str, Any]) -> ModelConfig:
    return qwen2.config(raw)


def mtp(config: ModelConfig, number: int) -> MTPNames:
    layer = f"model.mtp_layers.{number}"
    return MTPNames(
        layer=layer,
        token_norm=f"{layer}.token_layernorm",
        hidden_norm=f"{layer}.hidden_layernorm",
        join=f"{layer}.input_proj",
        norm=f"{layer}.final_layernorm",
        hidden_first=True,
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, llama.NAMES, ignored=("model.mtp_layers.*",))
