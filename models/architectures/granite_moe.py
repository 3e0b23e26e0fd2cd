"""Granite 3 with experts (1B-A400M, 3B-A800M), PowerMoE; one for all tokens where it is shared."""

from collections.abc import Mapping
from typing import Any

from models.architectures import granite, llama
from models.config.decoder import Mixture, ModelConfig
from models.config.experts import MAX_EXPERTS, read_activation, read_chosen
from models.config.fields import MAX_LAYERS, Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM")
DEFAULTS = {"num_local_experts": 8, "num_experts_per_tok": 2}
MOE, SHARED = f"{llama.LAYER}.block_sparse_moe", f"{llama.LAYER}.shared_mlp"
NAMES: Names = {
    **llama.NAMES,
    "layers.*.mlp.router": f"{MOE}.router.layer",
    "layers.*.mlp.experts.gate_up": f"{MOE}.input_linear.weight",
    "layers.*.mlp.experts.down": f"{MOE}.output_linear.weight",
    "layers.*.mlp.shared.gate_up": f"{SHARED}.input_linear",
    "layers.*.mlp.shared.down": f"{SHARED}.output_linear",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw})
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    return granite.scaled(fields, experts=[True] * layers, mixture=read_mixture(fields))


def read_mixture(fields: Fields) -> Mixture:
    """What Granite with windows and without have."""
    experts = fields.integer("num_local_experts", high=MAX_EXPERTS)
    return Mixture(
        num_experts=experts,
        per_token=read_chosen(fields, experts),
        intermediate_size=fields.integer("intermediate_size"),
        shared_size=fields.integer("shared_intermediate_size", 0, low=0),
        activation=read_activation(fields),
    )


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, expert_rows=True)
