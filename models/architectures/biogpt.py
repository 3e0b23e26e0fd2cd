"""BioGPT: OPT with GELU and scaled embeddings."""

import math
from collections.abc import Mapping
from typing import Any

from models.architectures import gpt2, opt
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.weights.decoder import prefixed, weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("BioGptForCausalLM",)
DEFAULTS = {"hidden_act": "gelu", "tie_word_embeddings": True}
NAMES: Names = {
    **prefixed(opt.NAMES, "biogpt.", "model.decoder."),
    "norm": "biogpt.layer_norm",
    "head": "output_projection",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}).replaced("rms_norm_eps", opt.EPS)  # whatever it says
    scaled = fields.flag("scale_embedding", True)
    scale = math.sqrt(fields.integer("hidden_size")) if scaled else 1.0
    return gpt2.dense(fields, position_offset=2, embedding_scale=scale)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, optional_prefix="")
