"""Gemma 3's text model: Gemma 2 with QK-norm instead of softcaps, five layers with a window to one
without, and a base of rotation for each of the two."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import gemma2
from models.config import LayerKind, ModelConfig
from models.fields import Fields
from models.rope import RopeConfig
from models.rope_settings import read_layer_rope
from models.windows import FULL, SLIDING, read_layer_types, read_windows

ARCHITECTURES = ("Gemma3ForCausalLM",)
DEFAULTS = {
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
}

weights = gemma2.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    fields.refuse("attn_logit_softcapping")
    base = gemma2.dense(fields, qk_norm="head")

    def slides(layer: int) -> bool:
        return (layer + 1) % fields.integer("sliding_window_pattern") != 0

    ropes = read_ropes(fields, base.head_dim)
    types, windows = read_layer_types(fields, slides), read_windows(fields, slides)
    kinds = (LayerKind(window, ropes[one]) for one, window in zip(types, windows, strict=True))
    return replace(base, layer_kinds=tuple(kinds))


def read_ropes(fields: Fields, head_dim: int) -> dict[str, RopeConfig]:
    """Newer files have an object for each type of layer; in older ones only full layers scale."""
    both = fields.section("rope_parameters")
    sliding = both.section(SLIDING)
    full = fields.section("rope_scaling") if "rope_scaling" in fields else both.section(FULL)
    return {
        SLIDING: read_layer_rope(sliding, fields, head_dim, "rope_local_base_freq"),
        FULL: read_layer_rope(full, fields, head_dim, "rope_theta"),
    }
