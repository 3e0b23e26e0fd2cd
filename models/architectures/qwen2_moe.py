"""Qwen1.5 and Qwen2 with experts: many small ones, and a shared one behind a gate of its own."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama, qwen2
from models.config.decoder import Mixture, ModelConfig
from models.config.experts import (
    MAX_EXPERTS,
    read_activation,
    read_chosen,
    read_sparse_layers,
    routed_names,
)
from models.config.fields import Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("Qwen2MoeForCausalLM",)
DEFAULTS = {
    **qwen2.DEFAULTS,
    "num_experts": 60,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 1408,
    "shared_expert_intermediate_size": 5632,
    "qkv_bias": True,
}
MLP = f"{llama.LAYER}.mlp"
NAMES: Names = {
    **llama.NAMES,
    **routed_names(MLP, "shared_expert"),
    "layers.*.mlp.shared_gate": f"{MLP}.shared_expert_gate",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    shared = fields.integer("shared_expert_intermediate_size")
    return llama.dense(
        fields,
        windows=qwen2.windows(fields, lambda layer, first: layer % 2 == 0 and layer < first),
        experts=read_sparse_layers(fields),
        mixture=read_mixture(fields, shared_size=shared, shared_gate=True),
        qkv_bias=fields.flag("qkv_bias", True),
    )


def read_mixture(fields: Fields, **switches: Any) -> Mixture:
    """The keys that Qwen's mixtures share; `switches` are the other fields of Mixture."""
    experts = fields.integer("num_experts", high=MAX_EXPERTS)
    return Mixture(
        num_experts=experts,
        per_token=read_chosen(fields, experts),
        intermediate_size=fields.integer("moe_intermediate_size"),
        renormalize=fields.flag("norm_topk_prob", False),
        activation=read_activation(fields),
        **switches,
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
