"""Granite 3 and 4 dense: Llama with a factor on embeddings, scores, what layers add, and logits."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields

ARCHITECTURES = ("GraniteForCausalLM",)

weights = llama.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    return scaled(Fields(raw))


def scaled(fields: Fields, **switches: Any) -> ModelConfig:
    """What Granite has with windows and without."""
    return dense(
        fields,
        attention_scale=fields.number("attention_multiplier", 1.0),
        logit_scale=1 / fields.number("logits_scaling", 1.0, low=1e-9),
        **switches,
    )


def dense(fields: Fields, **switches: Any) -> ModelConfig:
    """What Granite and HyperCLOVA X share."""
    bias = fields.flag("attention_bias", False)
    return llama.dense(
        fields,
        embedding_scale=fields.number("embedding_multiplier", 1.0),
        scales_given=True,
        residual_scale=fields.number("residual_multiplier", 1.0),
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=fields.flag("mlp_bias", False),
        **switches,
    )
