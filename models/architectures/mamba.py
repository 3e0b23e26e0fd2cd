"""Mamba and FalconMamba, which norms steps, keys and queries."""

from collections.abc import Mapping
from typing import Any

from models.config.decoder import ModelConfig
from models.config.dual_scans import MAX_STATE, MAX_WIDTH
from models.config.fields import Fields
from models.config.hybrids import pure
from models.config.mixers import SelectiveScan
from models.config.selective_scans import read_rank, selective_names
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

FALCON = "FalconMambaForCausalLM"
ARCHITECTURES = ("MambaForCausalLM", FALCON)
DEFAULTS = {"state_size": 16, "conv_kernel": 4, "expand": 2}
LAYER = "backbone.layers.*"
NAMES: Names = {
    "embedding": "backbone.embeddings",
    "layers.*.attention_norm": f"{LAYER}.norm",
    **selective_names(f"{LAYER}.mixer"),
    "norm": "backbone.norm_f",
    "head": "lm_head",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    fields.option("hidden_act", ("silu",), "silu")
    falcon = FALCON in fields.texts("architectures")
    inner = int(fields.number("expand") * fields.integer("hidden_size"))
    mixer = SelectiveScan(
        inner=fields.integer("intermediate_size", inner),
        state_size=fields.integer("state_size", high=MAX_STATE),
        rank=read_rank(fields, "time_step_rank"),
        conv_width=fields.integer("conv_kernel", low=2, high=MAX_WIDTH),
        conv_bias=fields.flag("use_conv_bias", True),
        bias=fields.flag("use_bias", False),
        norms="plain" if falcon else None,
        norm_eps=fields.number("mixer_rms_eps", 1e-6),
    )
    return pure(fields, mixer, tied_head=fields.flag("tie_word_embeddings", True))


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, optional_prefix="backbone.")
