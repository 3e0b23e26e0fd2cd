"""Arcee AFM: Llama with an MLP that squares what it lets through, and has no gate."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("ArceeForCausalLM",)
DEFAULTS = {"hidden_act": "relu2", "rms_norm_eps": 1e-5}
NAMES: Names = {**llama.NAMES, "layers.*.mlp.up": f"{llama.LAYER}.mlp.up_proj"}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    bias, mlp_bias = fields.flag("attention_bias", False), fields.flag("mlp_bias", False)
    return llama.dense(fields, gated_mlp=False, qkv_bias=bias, o_bias=bias, mlp_bias=mlp_bias)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
