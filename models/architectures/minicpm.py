"""MiniCPM 1, 2 and 4 dense: Llama with factors on embeddings, on what layers add, and on logits."""

import math
from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import MAX_LAYERS, Fields

ARCHITECTURES = ("MiniCPMForCausalLM",)

weights = llama.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields(raw)
    fields.refuse("sparse_config", "num_experts")
    bias = fields.flag("attention_bias", False)
    return llama.dense(fields, qkv_bias=bias, o_bias=bias, **factors(fields))


def factors(fields: Fields) -> dict[str, Any]:
    """Of embeddings, of what layers add, and of logits."""
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    return {
        "embedding_scale": fields.number("scale_emb", 1.0),
        "residual_scale": fields.number("scale_depth", 1.0) / math.sqrt(layers),
        "logit_scale": fields.integer("dim_model_base", 1) / fields.integer("hidden_size"),
    }
