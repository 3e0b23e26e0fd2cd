"""Seed-OSS: Llama with biases on queries, keys and values, and heads wider than the model."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields

ARCHITECTURES = ("SeedOssForCausalLM",)
DEFAULTS = {"head_dim": 128, "num_key_value_heads": 8}

weights = llama.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    return llama.dense(
        fields,
        qkv_bias=fields.flag("attention_bias", True),
        o_bias=fields.flag("attention_out_bias", False),
        mlp_bias=fields.flag("mlp_bias", False),
    )
