"""Command R and R+, Aya: attention and MLP in parallel, norms with a mean and without bias."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig, QKNorm
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import WeightMap

ARCHITECTURES = ("CohereForCausalLM",)
DEFAULTS = {"layer_norm_eps": 1e-5, "logit_scale": 0.0625, "tie_word_embeddings": True}
RENAMED = {"rms_norm_eps": "layer_norm_eps"}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names=RENAMED)
    each_head = QKNorm("heads", norm="layer")
    return dense(fields, qk_norm=each_head if fields.flag("use_qk_norm", False) else None)


def dense(fields: Fields, **switches: Any) -> ModelConfig:
    """What both generations share."""
    bias = fields.flag("attention_bias", False)
    return llama.dense(
        fields, norm="layer", parallel="one norm", logit_scale=fields.number("logit_scale"),
        qkv_bias=bias, o_bias=bias, **switches,
    )  # fmt: skip


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, llama.NAMES, paired=True)
