"""dots.llm1: the experts of DeepSeek V3 behind the attention of Qwen3."""

from collections.abc import Mapping
from typing import Any

from models.architectures import glm4_moe, llama
from models.config.decoder import ModelConfig, QKNorm
from models.config.experts import read_biased_mixture, read_first_dense
from models.config.fields import MAX_LAYERS, Fields
from models.config.windows import read_windows
from models.weights.decoder import weight_map
from models.weights.sources import WeightMap

ARCHITECTURES = ("Dots1ForCausalLM",)
DEFAULTS = {"moe_intermediate_size": 1408, "norm_topk_prob": False, "max_window_layers": 62}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    slides_from = fields.integer("max_window_layers", low=0, high=MAX_LAYERS)
    bias = fields.flag("attention_bias", False)
    return llama.dense(
        fields,
        windows=read_windows(fields, lambda n: "sliding_window" in fields and n >= slides_from),
        experts=read_first_dense(fields),
        mixture=read_biased_mixture(fields),
        qk_norm=QKNorm(),
        qkv_bias=bias,
        o_bias=bias,
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, glm4_moe.NAMES)
