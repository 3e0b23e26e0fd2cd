"""HyperCLOVA X SEED Think: Granite with norms behind attention and MLP too."""

from collections.abc import Mapping
from typing import Any

from models.architectures import granite, llama
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("HyperCLOVAXForCausalLM",)
NAMES: Names = {
    **llama.NAMES,
    "layers.*.attention_post_norm": f"{llama.LAYER}.post_norm1",
    "layers.*.mlp_post_norm": f"{llama.LAYER}.post_norm2",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields(raw)
    return granite.dense(
        fields,
        post_norms=fields.flag("use_post_norm", True),
        attention_scale=fields.optional_number("attention_multiplier"),
        logit_scale=fields.number("logits_scaling", 1.0),
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
