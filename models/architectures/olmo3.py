"""OLMo 3: OLMo 2 with a window on three layers of four, which do not scale their positions."""

from collections.abc import Mapping
from typing import Any

from models.architectures import olmo2
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.config.heads import read_head_dim
from models.config.rope import read_layer_ropes
from models.config.windows import read_layer_types, read_windows

ARCHITECTURES = ("Olmo3ForCausalLM",)
DEFAULTS = {"rms_norm_eps": 1e-5, "rope_theta": 500000.0, "sliding_window": 4096}

weights = olmo2.weights


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})

    def slides(layer: int) -> bool:
        return (layer + 1) % 4 != 0

    ropes = read_layer_ropes(fields, read_head_dim(fields))
    return olmo2.dense(
        fields,
        windows=read_windows(fields, slides),
        ropes=[ropes[one] for one in read_layer_types(fields, slides)],
    )
