"""Youtu-LLM: the latent attention of DeepSeek V3, without its experts."""

from collections.abc import Mapping
from typing import Any

from models.architectures import deepseek_v3
from models.config.decoder import ModelConfig
from models.config.fields import Fields

ARCHITECTURES = ("YoutuForCausalLM",)
DEFAULTS = {"q_lora_rank": 1536, "tie_word_embeddings": True}

weights = deepseek_v3.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    return deepseek_v3.latent_model(Fields({**DEFAULTS, **raw}), None)
