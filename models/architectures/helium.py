"""Helium: Llama whose rotated pairs are neighbours."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import WeightMap

ARCHITECTURES = ("HeliumForCausalLM",)
DEFAULTS = {"head_dim": 128, "rms_norm_eps": 1e-8}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    bias, mlp_bias = fields.flag("attention_bias", False), fields.flag("mlp_bias", False)
    return llama.dense(fields, qkv_bias=bias, mlp_bias=mlp_bias)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, llama.NAMES, paired=True)
