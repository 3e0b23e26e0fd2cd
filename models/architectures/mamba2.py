"""Mamba-2 and Codestral Mamba, in the form that transformers has them."""

from collections.abc import Mapping
from typing import Any

from models.config.decoder import ModelConfig
from models.config.dual_scans import MAX_STATE, MAX_WIDTH, check_heads, dual_names, read_step_limits
from models.config.fields import MAX_HEADS, Fields
from models.config.hybrids import pure
from models.config.mixers import DualScan
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("Mamba2ForCausalLM",)
DEFAULTS = {
    "num_heads": 128, "head_dim": 64, "state_size": 128, "n_groups": 8, "conv_kernel": 4,
    "expand": 2,
}  # fmt: skip

LAYER = "backbone.layers.*"
MIXER = f"{LAYER}.mixer"
NAMES: Names = {
    "embedding": "backbone.embeddings",
    "layers.*.attention_norm": f"{LAYER}.norm",
    **dual_names(MIXER),
    "norm": "backbone.norm_f",
    "head": "lm_head",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    fields.option("hidden_act", ("silu",), "silu")
    groups = fields.integer("n_groups", high=MAX_HEADS)
    mixer = DualScan(
        num_heads=fields.integer("num_heads", high=MAX_HEADS),
        head_dim=fields.integer("head_dim", high=MAX_HEADS),
        state_size=fields.integer("state_size", high=MAX_STATE),
        groups=groups,
        conv_width=fields.integer("conv_kernel", low=2, high=MAX_WIDTH),
        conv_bias=fields.flag("use_conv_bias", True),
        bias=fields.flag("use_bias", False),
        norm_groups=groups,
        step_limits=read_step_limits(fields),
    )
    check_heads(fields, mixer, int(fields.number("expand") * fields.integer("hidden_size")))
    return pure(fields, mixer, tied_head=fields.flag("tie_word_embeddings", False))


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, optional_prefix="backbone.")
