"""Qwen3: Qwen2 with a norm over each head of queries and keys in place of the biases."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama, qwen2
from models.config.decoder import ModelConfig, QKNorm
from models.config.fields import Fields

ARCHITECTURES = ("Qwen3ForCausalLM",)
DEFAULTS = {**qwen2.DEFAULTS, "head_dim": 128}

weights = llama.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    bias = fields.flag("attention_bias", False)
    return llama.dense(
        fields, windows=qwen2.windows(fields), qk_norm=QKNorm(), qkv_bias=bias, o_bias=bias
    )
