"""GLM-4 9B (2024): half of each head rotated, biases on queries, keys and values, a fused MLP."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("GlmForCausalLM",)
DEFAULTS = {
    "num_key_value_heads": 2,
    "head_dim": 128,
    "rms_norm_eps": 1.5625e-7,
    "partial_rotary_factor": 0.5,
    "eos_token_id": [151329, 151336, 151338],
}
NAMES: Names = {**llama.NAMES, "layers.*.mlp.gate_up": f"{llama.LAYER}.mlp.gate_up_proj"}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    return dense(Fields({**DEFAULTS, **raw}))


def dense(fields: Fields, **switches: Any) -> ModelConfig:
    """What both generations share."""
    return llama.dense(fields, qkv_bias=fields.flag("attention_bias", True), **switches)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, paired=True)
