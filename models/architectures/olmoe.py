"""OLMoE: 64 small experts, and a norm over all heads of queries and keys at once."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama, qwen2_moe
from models.config.decoder import Mixture, ModelConfig, QKNorm
from models.config.experts import MAX_EXPERTS, read_activation, read_chosen
from models.config.fields import MAX_LAYERS, Fields

ARCHITECTURES = ("OlmoeForCausalLM",)
DEFAULTS = {"num_experts": 64, "num_experts_per_tok": 8, "rms_norm_eps": 1e-5}

weights = qwen2_moe.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    fields.refuse("clip_qkv")
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    bias = fields.flag("attention_bias", False)
    return llama.dense(
        fields, experts=[True] * layers, mixture=read_mixture(fields), qk_norm=QKNorm("width"),
        qkv_bias=bias, o_bias=bias,
    )  # fmt: skip


def read_mixture(fields: Fields) -> Mixture:
    """What OLMoE and FlexOlmo share."""
    experts = fields.integer("num_experts", high=MAX_EXPERTS)
    return Mixture(
        num_experts=experts,
        per_token=read_chosen(fields, experts),
        intermediate_size=fields.integer("intermediate_size"),
        renormalize=fields.flag("norm_topk_prob", False),
        activation=read_activation(fields),
    )
