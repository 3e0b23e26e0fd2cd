"""Granite 4 hybrids (Micro, Tiny, Small): Mamba-2 in most layers, experts or an MLP in all."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import granite, granite_moe
from models.architectures.llama import LAYER
from models.config import dual_scans
from models.config.decoder import ModelConfig
from models.config.fields import MAX_LAYERS, Fields
from models.config.hybrids import with_states
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("GraniteMoeHybridForCausalLM",)
DEFAULTS = {
    **dual_scans.DEFAULTS, **granite_moe.DEFAULTS, "max_position_embeddings": 2048,
    "shared_intermediate_size": 1024,
}  # fmt: skip
STATED, FULL = ("mamba", "linear_attention"), ("attention", "full_attention")
NAMES: Names = {**granite_moe.NAMES, **dual_scans.dual_names(f"{LAYER}.mamba")}
DENSE: Names = {
    **NAMES,
    "layers.*.mlp.gate_up": NAMES["layers.*.mlp.shared.gate_up"],
    "layers.*.mlp.down": NAMES["layers.*.mlp.shared.down"],
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    if fields.integer("num_local_experts", low=0):
        mixture = granite_moe.read_mixture(fields)
        config = granite.scaled(fields, experts=[True] * layers, mixture=mixture)
    else:  # what all tokens go through is all there is
        config = granite.scaled(fields)
        config = replace(config, intermediate_size=fields.integer("shared_intermediate_size"))
    if fields.option("position_embedding_type", ("nope", "rope"), "nope") == "nope":
        kinds = tuple(replace(kind, rope=None) for kind in config.layer_kinds)
        config = replace(config, layer_kinds=kinds)
    key = "layer_types" if "layer_types" in fields else "layers_block_type"
    types = fields.options(key, layers, STATED + FULL) if key in fields else STATED[:1] * layers
    return with_states(config, [one in STATED for one in types], dual_scans.read_dual_scan(fields))


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES if config.mixture else DENSE, expert_rows=True)
