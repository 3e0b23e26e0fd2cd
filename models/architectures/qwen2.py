"""Qwen2, Qwen2.5, QwQ: Llama with biases on queries, keys and values; windows if asked for."""

from collections.abc import Callable, Mapping
from operator import ge
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import MAX_LAYERS, Fields
from models.config.windows import read_windows

ARCHITECTURES = ("Qwen2ForCausalLM",)
DEFAULTS = {"sliding_window": 4096, "max_window_layers": 28}

weights = llama.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    fields.refuse("use_mrope")
    return llama.dense(fields, windows=windows(fields), qkv_bias=True)


def windows(
    fields: Fields, slides: Callable[[int, int], bool] = ge
) -> tuple[int | None, ...] | None:
    """Layers from `max_window_layers` on slide, or those that `slides` tells of a layer and that
    number, if the file says that any shall."""
    if not fields.flag("use_sliding_window", False) or "sliding_window" not in fields:
        return None
    first = fields.integer("max_window_layers", low=0, high=MAX_LAYERS)
    return read_windows(fields, lambda layer: slides(layer, first))
