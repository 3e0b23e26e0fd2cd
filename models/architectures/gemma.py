"""Gemma 1: GeGLU, norms stored as w - 1, embeddings scaled by sqrt(D), one matrix for both ends."""

import math
from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields

ARCHITECTURES = ("GemmaForCausalLM",)
DEFAULTS = {"head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True}

weights = llama.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    # The first files say "gelu" and mean its tanh form, in which the model was trained.
    if fields.text("hidden_act") == "gelu":
        fields = Fields({**fields.raw, "hidden_act": "gelu_pytorch_tanh"})
    return dense(fields)


def dense(fields: Fields, **switches: Any) -> ModelConfig:
    """What the three generations share."""
    fields.refuse("use_bidirectional_attention")
    bias = fields.flag("attention_bias", False)
    scale = math.sqrt(fields.integer("hidden_size"))
    return llama.dense(
        fields, norm_offset=True, embedding_scale=scale, qkv_bias=bias, o_bias=bias, **switches
    )
