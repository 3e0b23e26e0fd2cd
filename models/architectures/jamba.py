"""Jamba: Mamba in seven layers of eight, attention without positions, experts in every second."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import bamba, llama
from models.config.decoder import Mixture, ModelConfig
from models.config.dual_scans import MAX_STATE, MAX_WIDTH
from models.config.experts import MAX_EXPERTS, read_activation, read_chosen
from models.config.fields import MAX_LAYERS, Fields
from models.config.hybrids import with_states
from models.config.mixers import SelectiveScan
from models.config.selective_scans import read_rank, selective_names
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("JambaForCausalLM",)
DEFAULTS = {
    "num_key_value_heads": 8, "max_position_embeddings": 262144, "num_experts": 16,
    "num_experts_per_tok": 2, "attn_layer_period": 8, "attn_layer_offset": 4,
    "expert_layer_period": 2, "expert_layer_offset": 1, "mamba_d_state": 16, "mamba_d_conv": 4,
    "mamba_expand": 2,
}  # fmt: skip
MLP, EXPERT = f"{llama.LAYER}.feed_forward", f"{llama.LAYER}.feed_forward.experts.#"
NAMES: Names = {
    **{key: name for key, name in bamba.NAMES.items() if ".mixer." not in key},
    **selective_names(f"{llama.LAYER}.mamba"),
    "layers.*.mlp.router": f"{MLP}.router",
    "layers.*.mlp.experts.gate_up": (f"{EXPERT}.gate_proj", f"{EXPERT}.up_proj"),
    "layers.*.mlp.experts.down": f"{EXPERT}.down_proj",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    count = fields.integer("num_experts", high=MAX_EXPERTS)
    sparse = [count > 1 and one for one in _every(fields, "expert")]
    mixture = Mixture(
        num_experts=count,
        per_token=read_chosen(fields, count),
        intermediate_size=fields.integer("intermediate_size"),
        renormalize=False,
        activation=read_activation(fields),
    )
    config = llama.dense(fields, experts=sparse, mixture=mixture if any(sparse) else None)
    kinds = tuple(replace(kind, rope=None) for kind in config.layer_kinds)
    mixer = SelectiveScan(
        inner=int(fields.number("mamba_expand") * config.hidden_size),
        state_size=fields.integer("mamba_d_state", high=MAX_STATE),
        rank=read_rank(fields, "mamba_dt_rank"),
        conv_width=fields.integer("mamba_d_conv", low=2, high=MAX_WIDTH),
        conv_bias=fields.flag("mamba_conv_bias", True),
        bias=fields.flag("mamba_proj_bias", False),
        norms="weighted",
        norm_eps=config.norm_eps,
    )
    stated = [not one for one in _every(fields, "attn")]
    return with_states(replace(config, layer_kinds=kinds), stated, mixer)


def _every(fields: Fields, what: str) -> list[bool]:
    """Layers `offset`, `offset + period` and so on."""
    period = fields.integer(f"{what}_layer_period", high=MAX_LAYERS)
    offset = fields.integer(f"{what}_layer_offset", low=0, high=period - 1)
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    return [layer % period == offset for layer in range(layers)]


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
