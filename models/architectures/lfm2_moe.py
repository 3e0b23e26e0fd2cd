"""LFM2 with experts (8B-A1B): sigmoids and a bias of the choice, behind the first layers."""

from collections.abc import Mapping
from typing import Any

from models.architectures import lfm2, llama
from models.config.decoder import Mixture, ModelConfig
from models.config.experts import MAX_EXPERTS, read_activation, read_chosen
from models.config.fields import MAX_LAYERS, Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("Lfm2MoeForCausalLM",)
DEFAULTS = {
    **lfm2.DEFAULTS, "num_experts": 32, "num_experts_per_tok": 4, "moe_intermediate_size": 1792,
    "num_dense_layers": 2,
}  # fmt: skip
MLP, EXPERT = f"{llama.LAYER}.feed_forward", f"{llama.LAYER}.feed_forward.experts.#"
NAMES: Names = {
    **lfm2.NAMES,
    "layers.*.mlp.router": f"{MLP}.gate",
    "layers.*.mlp.choice_bias": f"{MLP}.expert_bias",
    "layers.*.mlp.experts.gate_up": (f"{EXPERT}.w1", f"{EXPERT}.w3"),
    "layers.*.mlp.experts.down": f"{EXPERT}.w2",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**DEFAULTS, **raw}, names=lfm2.KEYS)
    experts = fields.integer("num_experts", high=MAX_EXPERTS)
    dense = fields.integer("num_dense_layers", low=0, high=MAX_LAYERS)
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    mixture = Mixture(
        num_experts=experts,
        per_token=read_chosen(fields, experts),
        intermediate_size=fields.integer("moe_intermediate_size"),
        score="sigmoid",
        renormalize=fields.flag("norm_topk_prob", True),
        scale=fields.number("routed_scaling_factor", 1.0),
        choice_bias=fields.flag("use_expert_bias", True),
        activation=read_activation(fields),
    )
    sparse = [layer >= dense for layer in range(layers)]
    return lfm2.convolved(fields, experts=sparse, mixture=mixture)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES)
