"""SmolLM3: Llama in which every fourth layer knows no positions."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama
from models.config.decoder import ModelConfig
from models.config.fields import MAX_LAYERS, Fields
from models.config.heads import read_head_dim
from models.config.rope import read_rope
from models.config.windows import read_windows
from models.errors import CheckpointError

ARCHITECTURES = ("SmolLM3ForCausalLM",)
DEFAULTS = {
    "num_key_value_heads": 4,
    "rope_theta": 2e6,
    "no_rope_layer_interval": 4,
    "tie_word_embeddings": True,
}

weights = llama.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    rotated = read_rotated(fields)
    rope = read_rope(fields, read_head_dim(fields))
    windows = None
    if fields.flag("use_sliding_window", False) and "sliding_window" in fields:
        windows = read_windows(fields, lambda layer: not rotated[layer])
    bias = fields.flag("attention_bias", False)
    return llama.dense(
        fields,
        windows=windows,
        ropes=[rope if one else None for one in rotated],
        qkv_bias=bias,
        o_bias=bias,
        mlp_bias=fields.flag("mlp_bias", False),
    )


def read_rotated(fields: Fields) -> tuple[bool, ...]:
    """Whether each layer rotates: `no_rope_layers` has a 1 where it does; or by the interval."""
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    if "no_rope_layers" not in fields:
        every = fields.integer("no_rope_layer_interval", high=MAX_LAYERS)
        return tuple((layer + 1) % every != 0 for layer in range(layers))
    listed = fields.integers("no_rope_layers", high=1)
    if len(listed) != layers:
        raise CheckpointError(
            f"{fields.where}: no_rope_layers has {len(listed)} entries for {layers} layers; "
            "it must have one for each."
        )
    return tuple(one == 1 for one in listed)
