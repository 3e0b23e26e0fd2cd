"""OLMo 1: Llama with norms without weights and biases, and bounds on queries, keys and values."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields

ARCHITECTURES = ("OlmoForCausalLM",)
DEFAULTS = {"rms_norm_eps": 1e-5}

weights = llama.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    bias = fields.flag("attention_bias", False)
    return llama.dense(
        fields,
        norm="layer",
        norm_weight=False,
        qkv_clip=fields.optional_number("clip_qkv"),
        qkv_bias=bias,
        o_bias=bias,
    )
