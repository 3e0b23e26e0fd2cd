"""EXAONE 3.0 and 3.5: Llama under other names."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("ExaoneForCausalLM",)
DEFAULTS = {"activation_function": "silu", "layer_norm_epsilon": 1e-5}
RENAMED = {
    "num_hidden_layers": "num_layers",
    "hidden_act": "activation_function",
    "rms_norm_eps": "layer_norm_epsilon",
}
LAYER = "transformer.h.*"
NAMES: Names = {
    "embedding": "transformer.wte",
    "layers.*.attention_norm": f"{LAYER}.ln_1",
    "layers.*.attention.qkv": tuple(f"{LAYER}.attn.attention.{x}_proj" for x in "qkv"),
    "layers.*.attention.o": f"{LAYER}.attn.attention.out_proj",
    "layers.*.mlp_norm": f"{LAYER}.ln_2",
    "layers.*.mlp.gate_up": (f"{LAYER}.mlp.c_fc_0", f"{LAYER}.mlp.c_fc_1"),
    "layers.*.mlp.down": f"{LAYER}.mlp.c_proj",
    "norm": "transformer.ln_f",
    "head": "lm_head",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    return llama.dense(Fields({**DEFAULTS, **raw}, names=RENAMED))


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, optional_prefix="transformer.")
