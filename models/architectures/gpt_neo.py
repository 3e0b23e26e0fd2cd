"""GPT-Neo and TinyStories: GPT-2 with a window on every other layer, and unscaled scores."""

from collections.abc import Mapping
from typing import Any

from models.architectures import gpt2
from models.config.decoder import ModelConfig
from models.config.fields import MAX_LAYERS, MAX_TOKENS, Fields
from models.errors import UnsupportedError
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("GPTNeoForCausalLM",)
DEFAULTS = {**gpt2.DEFAULTS, "window_size": 256}
RENAMED = {
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "hidden_act": "activation_function",
    "rms_norm_eps": "layer_norm_epsilon",
}
LAYER = gpt2.LAYER
NAMES: Names = {
    **gpt2.NAMES,
    "layers.*.attention.qkv": tuple(f"{LAYER}.attn.attention.{x}_proj" for x in "qkv"),
    "layers.*.attention.o": f"{LAYER}.attn.attention.out_proj",
}
IGNORED = ("*.attn.attention.bias", "*.attn.attention.masked_bias")  # masks of early versions
LOCAL = {"global": False, "local": True}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names=RENAMED)
    fields = fields.completed("intermediate_size", 4 * fields.integer("hidden_size"))
    window = fields.integer("window_size", high=MAX_TOKENS)
    return gpt2.dense(
        fields,
        windows=[window if LOCAL[kind] else None for kind in read_kinds(fields)],
        attention_scale=1.0,
        qkv_bias=False,
    )


def read_kinds(fields: Fields) -> tuple[str, ...]:
    """Global or local for each layer, which newer files list."""
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    if "attention_layers" in fields:
        return fields.options("attention_layers", layers, LOCAL)
    turns = [[["global", "local"], layers // 2]]
    if layers % 2 or ("attention_types" in fields and fields.raw["attention_types"] != turns):
        raise UnsupportedError(
            f"{fields.where}: attention_types is not {turns} for {layers} layers; without "
            "attention_layers only that is supported."
        )
    return ("global", "local") * (layers // 2)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, ignored=IGNORED, optional_prefix="transformer.")
