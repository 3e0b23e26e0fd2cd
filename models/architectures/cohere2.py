"""Command R7B and A: Command R with a window on three layers of four; the fourth has no rope."""

from collections.abc import Mapping
from typing import Any

from models.architectures import cohere
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.config.heads import read_head_dim
from models.config.rope import read_rope
from models.config.windows import read_windows

ARCHITECTURES = ("Cohere2ForCausalLM",)
DEFAULTS = {**cohere.DEFAULTS, "sliding_window": 4096, "sliding_window_pattern": 4}

weights = cohere.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names=cohere.RENAMED)
    fields.refuse("use_qk_norm")

    def slides(layer: int) -> bool:
        return (layer + 1) % fields.integer("sliding_window_pattern") != 0

    windows = read_windows(fields, slides)
    rope = read_rope(fields, read_head_dim(fields))
    return cohere.dense(fields, windows=windows, ropes=[rope if w else None for w in windows])
