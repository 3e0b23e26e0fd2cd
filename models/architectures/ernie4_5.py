"""ERNIE 4.5 dense: Llama whose rotated pairs are neighbours."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import WeightMap

ARCHITECTURES = ("Ernie4_5ForCausalLM",)
DEFAULTS = {
    "head_dim": 128,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    bias = fields.flag("use_bias", False)
    return llama.dense(fields, qkv_bias=bias, o_bias=bias, mlp_bias=bias)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, llama.NAMES, paired=True)
