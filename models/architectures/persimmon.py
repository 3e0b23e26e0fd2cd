"""Persimmon: layer norms, over heads too, half of each head rotated, squared ReLU."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig, QKNorm
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("PersimmonForCausalLM",)
DEFAULTS = {
    "hidden_act": "relu2",
    "layer_norm_eps": 1e-5,
    "partial_rotary_factor": 0.5,
    "rope_theta": 25000.0,
}
NAMES: Names = {
    **llama.NAMES,
    "layers.*.attention.qkv": f"{llama.LAYER}.self_attn.query_key_value",
    "layers.*.attention.q_norm": f"{llama.LAYER}.self_attn.q_layernorm",
    "layers.*.attention.k_norm": f"{llama.LAYER}.self_attn.k_layernorm",
    "layers.*.attention.o": f"{llama.LAYER}.self_attn.dense",
    "layers.*.mlp.up": f"{llama.LAYER}.mlp.dense_h_to_4h",
    "layers.*.mlp.down": f"{llama.LAYER}.mlp.dense_4h_to_h",
    "norm": "model.final_layernorm",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names={"rms_norm_eps": "layer_norm_eps"})
    normed = QKNorm(norm="layer", bias=True)
    return llama.dense(
        fields, norm="layer", norm_bias=True, gated_mlp=False,
        qk_norm=normed if fields.flag("qk_layernorm", True) else None,
        qkv_bias=True, o_bias=True, mlp_bias=True,
    )  # fmt: skip


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, grouped=True)
