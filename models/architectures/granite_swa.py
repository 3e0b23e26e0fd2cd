"""Granite with windows: sinks, a window on three layers of four, a base of rotation a layer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import granite, llama
from models.config.decoder import ModelConfig
from models.config.fields import MAX_LAYERS, Fields
from models.config.heads import read_head_dim
from models.config.rope import read_rope
from models.config.windows import read_windows
from models.errors import CheckpointError
from models.layers.rope import RopeConfig
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("GraniteSWAForCausalLM",)
DEFAULTS = {
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "sliding_window": 128,
    "tie_word_embeddings": True,
}
NAMES: Names = {**llama.NAMES, "layers.*.attention.sinks": f"{llama.LAYER}.self_attn.sinks"}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    return granite.scaled(
        fields,
        windows=read_windows(fields, lambda layer: layer % 4 != 0),
        ropes=read_ropes(fields),
        sinks=True,
    )


def read_ropes(fields: Fields) -> list[RopeConfig | None]:
    """Each layer's, which the list `layer_rope_theta` gives bases of its own; 0 is no rotation."""
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    rope = read_rope(fields, read_head_dim(fields))
    if "layer_rope_theta" not in fields:
        return [rope] * layers
    thetas = fields.numbers("layer_rope_theta", layers, low=-1.0)
    if wrong := [theta for theta in thetas if theta != 0 and theta <= 1]:
        raise CheckpointError(
            f"{fields.where}: layer_rope_theta has {wrong[0]:g}; each must be 0 or above 1."
        )
    return [replace(rope, theta=theta) if theta else None for theta in thetas]


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
