"""OLMo 2: norms behind attention and MLP only, and one over all heads of queries and of keys."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig, QKNorm
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("Olmo2ForCausalLM",)
DEFAULTS = {"rms_norm_eps": 1e-5}
NAMES: Names = {
    **llama.NAMES,
    "layers.*.attention_post_norm": f"{llama.LAYER}.post_attention_layernorm",
    "layers.*.mlp_post_norm": f"{llama.LAYER}.post_feedforward_layernorm",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    return dense(Fields({**DEFAULTS, **raw}))


def dense(fields: Fields, **switches: Any) -> ModelConfig:
    """What OLMo 2 and 3 share."""
    bias = fields.flag("attention_bias", False)
    return llama.dense(
        fields, pre_norms=False, post_norms=True, qk_norm=QKNorm("width"),
        qkv_bias=bias, o_bias=bias, **switches,
    )  # fmt: skip


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
