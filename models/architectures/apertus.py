"""Apertus: Llama with norms over heads, and an MLP without a gate whose activation is learned."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig, QKNorm
from models.config.fields import Fields
from models.layers.parts import ACTIVATIONS
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("ApertusForCausalLM",)
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 12000000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 8192,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
DEFAULTS = {"hidden_act": "xielu", "rms_norm_eps": 1e-5}
NAMES: Names = {
    **llama.NAMES,
    "layers.*.attention_norm": f"{llama.LAYER}.attention_layernorm",
    "layers.*.mlp_norm": f"{llama.LAYER}.feedforward_layernorm",
    "layers.*.mlp.up": f"{llama.LAYER}.mlp.up_proj",
    "layers.*.mlp.activation": f"{llama.LAYER}.mlp.act_fn",
}
CONSTANTS = ("*.act_fn.beta", "*.act_fn.eps")  # the same in every checkpoint


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    fields.refuse("post_norm", "mlp_bias")
    fields.required("qk_norm")
    if not any(key in fields for key in ("rope_parameters", "rope_scaling")):
        fields = Fields({**fields.raw, "rope_parameters": SCALED})
    bias = fields.flag("attention_bias", False)
    return llama.dense(
        fields, activations=(*ACTIVATIONS, "xielu"), gated_mlp=False, qk_norm=QKNorm(),
        qkv_bias=bias, o_bias=bias,
    )  # fmt: skip


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, ignored=CONSTANTS)
