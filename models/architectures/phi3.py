"""Phi-3, Phi-3.5, Phi-4 and Phi-4-mini: Llama with fused tensors, LongRoPE and partial rotation."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.config.windows import read_windows
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("Phi3ForCausalLM",)
DEFAULTS = {"rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096}

NAMES: Names = {
    **llama.NAMES,
    "layers.*.attention.qkv": f"{llama.LAYER}.self_attn.qkv_proj",
    "layers.*.mlp.gate_up": f"{llama.LAYER}.mlp.gate_up_proj",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    fields.refuse("attention_bias", "mlp_bias", "lm_head_bias")
    return llama.dense(fields, windows=read_windows(fields, lambda _: "sliding_window" in fields))


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
