"""FlexOlmo: the layers of OLMo 2 with the experts of OLMoE."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama, olmo2, olmoe
from models.config.decoder import ModelConfig
from models.config.experts import routed_names
from models.config.fields import MAX_LAYERS, Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("FlexOlmoForCausalLM",)
DEFAULTS = {"num_experts": 7, "num_experts_per_tok": 5, "rope_theta": 500000.0}
NAMES: Names = {**olmo2.NAMES, **routed_names(f"{llama.LAYER}.mlp", "shared")}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    return olmo2.dense(fields, experts=[True] * layers, mixture=olmoe.read_mixture(fields))


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
