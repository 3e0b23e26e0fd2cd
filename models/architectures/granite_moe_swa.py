"""Granite with windows and experts: both of the two."""

from collections.abc import Mapping
from typing import Any

from models.architectures import granite, granite_moe, granite_swa
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.config.windows import read_windows
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("GraniteMoeSWAForCausalLM",)
DEFAULTS = {**granite_moe.DEFAULTS, "sliding_window": 128}
NAMES: Names = {
    **granite_swa.NAMES,
    **granite_moe.NAMES,
    "layers.*.mlp.router": f"{granite_moe.MOE}.router",
    "layers.*.mlp.experts.gate_up": f"{granite_moe.MOE}.experts.gate_up_proj",
    "layers.*.mlp.experts.down": f"{granite_moe.MOE}.experts.down_proj",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    windows = read_windows(fields, lambda layer: layer % 4 != 0)
    return granite.scaled(
        fields,
        windows=windows,
        ropes=granite_swa.read_ropes(fields),
        experts=[True] * len(windows),
        mixture=granite_moe.read_mixture(fields),
        sinks=True,
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, expert_rows=True)
