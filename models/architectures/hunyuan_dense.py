"""Hunyuan dense (0.5B to 7B): Llama with norms over heads behind their rotation."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig, QKNorm
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("HunYuanDenseV1ForCausalLM",)
DEFAULTS = {"rms_norm_eps": 1e-5}
NAMES: Names = {
    **llama.NAMES,
    "layers.*.attention.q_norm": f"{llama.LAYER}.self_attn.query_layernorm",
    "layers.*.attention.k_norm": f"{llama.LAYER}.self_attn.key_layernorm",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    fields.refuse("use_cla")
    fields.required("use_qk_norm")
    bias = fields.flag("attention_bias", False)
    return llama.dense(fields, qk_norm=QKNorm(rotated=True), qkv_bias=bias, o_bias=bias)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
