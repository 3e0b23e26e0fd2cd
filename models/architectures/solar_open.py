"""Solar Open: GLM-4.5 with experts in every layer, and whole heads rotated."""

from collections.abc import Mapping
from typing import Any

from models.architectures import glm4_moe
from models.config.decoder import ModelConfig

ARCHITECTURES = ("SolarOpenForCausalLM",)
CHANGED = {
    "head_dim": 128,
    "moe_intermediate_size": 1280,
    "partial_rotary_factor": 1.0,
    "rope_theta": 1e6,
}
FIXED = {"first_k_dense_replace": 0, "use_qk_norm": False}

weights = glm4_moe.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    experts = raw.get("moe_intermediate_size")
    return glm4_moe.config({"intermediate_size": experts, **CHANGED, **raw, **FIXED})
