"""Code World Model: Llama 3 with a window on three layers of four."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.config.windows import read_windows

ARCHITECTURES = ("CwmForCausalLM",)
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 1000000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 8192,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
DEFAULTS = {
    "head_dim": 128,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0,
    "sliding_window": 8192,
    "eos_token_id": [128001, 128008, 128009],
}

weights = llama.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    if "rope_scaling" not in fields:
        fields = fields.completed("rope_parameters", SCALED)
    return llama.dense(
        fields,
        windows=read_windows(fields, lambda layer: layer % 4 != 0),
        mlp_bias=fields.flag("mlp_bias", False),
    )
