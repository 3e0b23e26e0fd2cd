"""Qwen (the first, 1.8B to 72B): Llama with biases and other names, up to the length it learned.

Beyond `seq_length` it would stretch its positions and scores, which is not done here.
"""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("QWenLMHeadModel",)
DEFAULTS = {"layer_norm_epsilon": 1e-6, "kv_channels": 128, "hidden_act": "silu"}
RENAMED = {
    "rms_norm_eps": "layer_norm_epsilon",
    "rope_theta": "rotary_emb_base",
    "partial_rotary_factor": "rotary_pct",
    "max_position_embeddings": "seq_length",
    "head_dim": "kv_channels",
}
LAYER = "transformer.h.*"
NAMES: Names = {
    "embedding": "transformer.wte",
    "layers.*.attention_norm": f"{LAYER}.ln_1",
    "layers.*.attention.qkv": f"{LAYER}.attn.c_attn",
    "layers.*.attention.o": f"{LAYER}.attn.c_proj",
    "layers.*.mlp_norm": f"{LAYER}.ln_2",
    "layers.*.mlp.gate_up": (f"{LAYER}.mlp.w2", f"{LAYER}.mlp.w1"),
    "layers.*.mlp.down": f"{LAYER}.mlp.c_proj",
    "norm": "transformer.ln_f",
    "head": "lm_head",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names=RENAMED)
    both = fields.integer("intermediate_size", low=2)  # of gate and up together
    bias = not fields.flag("no_bias", True)
    return llama.dense(
        fields.replaced("intermediate_size", both // 2), qkv_bias=True, o_bias=bias, mlp_bias=bias
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, optional_prefix="transformer.")
