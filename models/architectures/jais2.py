"""Jais 2: Llama with layer norms, biases everywhere, and an MLP without a gate."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("Jais2ForCausalLM",)
DEFAULTS = {"hidden_act": "relu2", "layer_norm_eps": 1e-5}
NAMES: Names = {**llama.NAMES, "layers.*.mlp.up": f"{llama.LAYER}.mlp.up_proj"}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names={"rms_norm_eps": "layer_norm_eps"})
    bias = fields.flag("attention_bias", True)
    return llama.dense(
        fields, norm="layer", norm_bias=True, gated_mlp=False,
        qkv_bias=bias, o_bias=bias, mlp_bias=fields.flag("mlp_bias", True),
    )  # fmt: skip


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
