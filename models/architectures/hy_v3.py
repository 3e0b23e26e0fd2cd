"""Hunyuan 3 (Hy3): norms over heads, and experts chosen by sigmoids and a bias.

The layers behind the last, which predict further tokens, are not read.
"""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig, QKNorm
from models.config.experts import read_biased_mixture, read_first_dense, routed_names
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.mtp import layers_behind
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("HYV3ForCausalLM",)
DEFAULTS = {
    "head_dim": 128,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 11_158_840.0,
    "num_experts": 192,
    "num_experts_per_tok": 8,
    "num_shared_experts": 1,
    "first_k_dense_replace": 1,
}
KEYS = {
    "n_routed_experts": "num_experts",
    "n_shared_experts": "num_shared_experts",
    "routed_scaling_factor": "router_scaling_factor",
}
MLP = f"{llama.LAYER}.mlp"
NAMES: Names = {
    **llama.NAMES,
    **routed_names(MLP, "shared_mlp"),
    "layers.*.mlp.router": f"{MLP}.router.gate",
    "layers.*.mlp.choice_bias": f"{MLP}.expert_bias",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names=KEYS)
    bias = fields.flag("attention_bias", False)
    return llama.dense(
        fields,
        experts=read_first_dense(fields),
        mixture=read_biased_mixture(fields),
        qk_norm=QKNorm(),
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=fields.flag("mlp_bias", False),
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, ignored=layers_behind(config))
