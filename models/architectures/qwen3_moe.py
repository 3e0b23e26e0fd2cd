"""Qwen3 with experts (30B-A3B, 235B-A22B): Qwen2's without the shared one, QK-norm for biases."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama, qwen2, qwen2_moe
from models.config.decoder import ModelConfig, QKNorm
from models.config.experts import read_sparse_layers
from models.config.fields import Fields

ARCHITECTURES = ("Qwen3MoeForCausalLM",)
DEFAULTS = {
    **qwen2.DEFAULTS,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
}

weights = qwen2_moe.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    bias = fields.flag("attention_bias", False)
    return llama.dense(
        fields,
        windows=qwen2.windows(fields, lambda layer, first: True),
        experts=read_sparse_layers(fields),
        mixture=qwen2_moe.read_mixture(fields),
        qk_norm=QKNorm(),
        qkv_bias=bias,
        o_bias=bias,
    )
