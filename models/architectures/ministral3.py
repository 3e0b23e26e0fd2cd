"""Ministral 3, its text model: Mistral with YaRN, and scores that grow with the position."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig, ScoreGrowth
from models.config.fields import MAX_TOKENS, Fields
from models.config.windows import read_windows

ARCHITECTURES = ("Ministral3ForCausalLM",)
SCALED = {
    "rope_type": "yarn",
    "rope_theta": 1000000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}
DEFAULTS = {
    "head_dim": 128,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_parameters": SCALED,
}

weights = llama.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    settings = fields.section("rope_parameters")
    trained = settings.integer("original_max_position_embeddings", high=MAX_TOKENS)
    growth = ScoreGrowth(settings.number("llama_4_scaling_beta"), trained)
    windows = read_windows(fields, lambda _: "sliding_window" in fields)
    return llama.dense(fields, windows=windows, score_growth=growth)
