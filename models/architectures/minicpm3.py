"""MiniCPM 3: the factors of MiniCPM around the latent attention of DeepSeek V2, which rotates
halves."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import deepseek_v3, minicpm
from models.config.decoder import ModelConfig
from models.config.fields import Fields

ARCHITECTURES = ("MiniCPM3ForCausalLM",)
DEFAULTS = {
    "q_lora_rank": 768,
    "kv_lora_rank": 256,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "scale_emb": 12,
    "scale_depth": 1.4,
    "dim_model_base": 256,
}

weights = deepseek_v3.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}).replaced("rope_interleave", False)
    fields.refuse("mlp_bias")
    width, heads = (fields.integer(key) for key in ("hidden_size", "num_attention_heads"))
    fields = fields.completed("v_head_dim", width // heads)
    return replace(deepseek_v3.latent_model(fields, None), **minicpm.factors(fields))
