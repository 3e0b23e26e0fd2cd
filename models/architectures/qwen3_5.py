"""Qwen3.5's text models: Qwen3-Next's layers with a dense MLP, and tensors one by one."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama, qwen3_next
from models.architectures.qwen3_next import MIXER
from models.config import ModelConfig
from models.fields import Fields
from models.weight_map import Names, weight_map
from models.weights import WeightMap

ARCHITECTURES = ("Qwen3_5ForCausalLM",)
NAMES: Names = {
    **qwen3_next.NAMES,
    **{key: name for key, name in llama.NAMES.items() if ".mlp." in key},
    "layers.*.mixer.input": (f"{MIXER}.in_proj_qkv", f"{MIXER}.in_proj_z"),
    "layers.*.mixer.rates": (f"{MIXER}.in_proj_b", f"{MIXER}.in_proj_a"),
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    return qwen3_next.gated(Fields({**qwen3_next.DEFAULTS, **raw}), grouped=False)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, ignored=("mtp.*",))
