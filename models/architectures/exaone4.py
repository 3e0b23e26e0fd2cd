"""EXAONE 4: norms behind attention and MLP, and over heads; full layers among ones with a window
have no positions."""

import re
from collections.abc import Mapping
from typing import Any

from models.architectures import llama, olmo2
from models.config.decoder import ModelConfig, QKNorm
from models.config.fields import Fields
from models.config.heads import read_head_dim
from models.config.rope import read_rope
from models.config.windows import FULL, SLIDING, read_layer_types, read_windows
from models.errors import UnsupportedError

ARCHITECTURES = ("Exaone4ForCausalLM",)
PATTERN = "sliding_window_pattern"
DEFAULTS = {"rms_norm_eps": 1e-5, "sliding_window": 4096, PATTERN: 4}

weights = olmo2.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    return hybrid(fields, pre_norms=False, post_norms=True)


def hybrid(fields: Fields, **switches: Any) -> ModelConfig:
    """What EXAONE 4 and K-EXAONE share."""
    slide = "sliding_window" in fields
    letters = fields.raw.get(PATTERN)
    if isinstance(letters, str) and not re.fullmatch("[LG]+", letters):
        raise UnsupportedError(
            f"{fields.where}: {PATTERN} is {letters[:60]!r}; use a number, or a letter a layer, L "
            "for one with a window and G for one without."
        )

    def slides(layer: int) -> bool:
        if isinstance(letters, str):  # the last layer sees all, whatever they say
            last = fields.integer("num_hidden_layers") - 1
            return slide and layer != last and letters[layer % len(letters)] == "L"
        return slide and (layer + 1) % fields.integer(PATTERN) != 0

    rope = read_rope(fields, read_head_dim(fields))
    ropes = {SLIDING: rope, FULL: None if slide else rope}
    return llama.dense(
        fields,
        windows=read_windows(fields, slides),
        ropes=[ropes[one] for one in read_layer_types(fields, slides)],
        qk_norm=QKNorm(),
        **switches,
    )
