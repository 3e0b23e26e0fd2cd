"""GLM-4.7-Flash: the latent attention and the experts of DeepSeek V3, smaller."""

from collections.abc import Mapping
from typing import Any

from models.architectures import deepseek_v3
from models.config.decoder import ModelConfig
from models.config.experts import read_biased_mixture
from models.config.fields import Fields

ARCHITECTURES = ("Glm4MoeLiteForCausalLM",)
DEFAULTS = {
    "n_routed_experts": 64,
    "num_experts_per_tok": 4,
    "n_shared_experts": 1,
    "moe_intermediate_size": 1536,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.8,
    "qk_nope_head_dim": 192,
    "v_head_dim": 256,
    "rms_norm_eps": 1e-5,
}

weights, mtp = deepseek_v3.weights, deepseek_v3.mtp


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    return deepseek_v3.latent_model(fields, read_biased_mixture(fields))
