"""Gemma 2: Gemma with softcaps, windows on every other layer, and norms behind each block too."""

from collections.abc import Mapping
from typing import Any

from models.architectures import gemma, llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.config.windows import read_windows
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("Gemma2ForCausalLM",)
DEFAULTS = {
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
RENAMED = {"hidden_act": "hidden_activation"}

NAMES: Names = {
    **llama.NAMES,
    "layers.*.attention_post_norm": f"{llama.LAYER}.post_attention_layernorm",
    "layers.*.mlp_norm": f"{llama.LAYER}.pre_feedforward_layernorm",
    "layers.*.mlp_post_norm": f"{llama.LAYER}.post_feedforward_layernorm",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    return windowed(raw, post_norms=True)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)


def windowed(raw: Mapping[str, Any], **switches: Any) -> ModelConfig:
    """What Gemma 2 and VaultGemma share."""
    fields = Fields({**DEFAULTS, **raw}, names=RENAMED)
    return dense(
        fields,
        windows=read_windows(fields, lambda layer: layer % 2 == 0),
        attention_softcap=fields.optional_number("attn_logit_softcapping"),
        **switches,
    )


def dense(fields: Fields, **switches: Any) -> ModelConfig:
    """What Gemma 2 and 3 share."""
    return gemma.dense(
        fields,
        attention_scale=fields.number("query_pre_attn_scalar") ** -0.5,
        logit_softcap=fields.optional_number("final_logit_softcapping"),
        **switches,
    )
