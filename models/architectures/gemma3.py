"""Gemma 3's text model: Gemma 2 with QK-norm instead of softcaps, five layers with a window to one
without, and a base of rotation for each of the two."""

from collections.abc import Mapping
from typing import Any

from models.architectures import gemma2
from models.config.decoder import ModelConfig, QKNorm
from models.config.fields import Fields
from models.config.heads import read_head_dim
from models.config.rope import read_layer_ropes
from models.config.windows import read_layer_types, read_windows

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
    fields = Fields({**DEFAULTS, **raw}, names=gemma2.RENAMED)
    fields.refuse("attn_logit_softcapping")

    def slides(layer: int) -> bool:
        return (layer + 1) % fields.integer("sliding_window_pattern") != 0

    ropes = read_layer_ropes(fields, read_head_dim(fields), "rope_local_base_freq")
    return gemma2.dense(
        fields,
        windows=read_windows(fields, slides),
        ropes=[ropes[one] for one in read_layer_types(fields, slides)],
        post_norms=True,
        qk_norm=QKNorm(),
    )
