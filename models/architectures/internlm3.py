"""InternLM 3: Llama with heads wider than the model, and names of its own for the biases."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields

ARCHITECTURES = ("InternLM3ForCausalLM",)
DEFAULTS = {"head_dim": 128, "num_key_value_heads": 2, "rms_norm_eps": 1e-5}

weights = llama.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    bias = fields.flag("bias", False)
    return llama.dense(fields, qkv_bias=fields.flag("qkv_bias", bias), o_bias=bias, mlp_bias=bias)
