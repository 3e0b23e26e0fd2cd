"""Mistral 7B and Nemo, Ministral 8B: Llama with, in some versions, a window on layers."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.config.windows import read_windows

ARCHITECTURES = ("MistralForCausalLM", "MinistralForCausalLM")
DEFAULTS = {"sliding_window": 4096}  # a file that says null means none

weights = llama.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    return llama.dense(fields, windows=read_windows(fields, lambda _: "sliding_window" in fields))
